"""The base model: what goes in, what comes out, what is saved."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import trainer_data

from beam_pipelines import schema
from trainer import base_model, metrics, model_files, strategy
from trainer.losses import LOSSES
from trainer.optimizer import make_optimizer

PRIORS = dict(zip(schema.SUBTYPES, (0.01, 0.05, 0.0, 0.1, 0.2, 0.5), strict=True))


def _images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_the_head_starts_at_the_priors() -> None:
    model = base_model.build_base_model(trainer_data.tiny_config().base, 32, PRIORS)
    bias = model.get_layer("logits").get_weights()[1]
    expected = [0.01, 0.05, 1e-4, 0.1, 0.2, 0.5]
    assert metrics.sigmoid(bias) == pytest.approx(expected, rel=1e-4)


def test_bytes_become_minus_one_to_one() -> None:
    model = base_model.build_base_model(trainer_data.tiny_config().base, 32)
    scale = model.get_layer("scale")
    assert scale(np.array([0, 255], np.uint8)).numpy().tolist() == [-1.0, 1.0]


def test_embedding_and_logits_are_those_of_the_model() -> None:
    model = base_model.build_base_model(trainer_data.tiny_config().base, 32)
    embeddings, logits = base_model.embedding_model(model)(_images(), training=False)
    assert embeddings.shape == (2, 128)
    assert logits.dtype == embeddings.dtype == tf.float32
    assert np.allclose(logits, model(_images(), training=False), atol=1e-6)


def test_mirror_images_count_as_much_as_images() -> None:
    model = base_model.build_base_model(trainer_data.tiny_config().base, 32)
    both = base_model.at_test_time(base_model.embedding_model(model), "flip")
    images = _images()
    seen = base_model.embedding_model(model)(images, training=False)
    mirrored = base_model.embedding_model(model)(images[:, :, ::-1], training=False)
    for output, one, other in zip(both(images, training=False), seen, mirrored, strict=True):
        assert np.abs(one - other).max() > 1e-4
        assert np.allclose(output, (one + other) / 2, atol=1e-6)
    logits = base_model.at_test_time(model, "flip")(images[:, :, ::-1], training=False)
    assert np.allclose(logits, both(images, training=False)[1], atol=1e-6)
    assert base_model.at_test_time(model, "none") is model


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_sixteen_bits_are_for_the_backbone_alone(tmp_path: Path, precision: str) -> None:
    config = trainer_data.tiny_config(precision=precision).base
    model = base_model.build_base_model(config, 32)
    assert keras.config.dtype_policy().name == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    compute = {layer.compute_dtype for layer in model.get_layer("backbone").layers}
    assert precision.removeprefix("mixed_") in compute
    embeddings, logits = base_model.embedding_model(model)(_images(), training=False)
    assert embeddings.dtype == logits.dtype == tf.float32
    model.compile(make_optimizer(config, 4), LOSSES["weighted_loss"])
    labels = np.eye(6, dtype=np.float32)[:2]
    losses = [float(model.train_on_batch(_images(), labels)) for _ in range(12)]
    assert losses[-1] < losses[0]
    path = str(tmp_path / "model.keras")
    model_files.save_model(model, path)
    again = model_files.load_model(path)(_images(), training=False)
    assert np.allclose(again, model(_images(), training=False), atol=1e-3)


def test_compiled_with_xla_it_trains_to_the_same(tmp_path: Path) -> None:
    labels = np.eye(6, dtype=np.float32)[:2]
    losses = []
    for xla in (False, True):
        config = trainer_data.tiny_config(dropout_rate=0.0, xla=xla).base
        keras.utils.set_random_seed(0)
        with strategy.make_strategy(["CPU:0"], xla=xla).scope():
            model = base_model.build_base_model(config, 32)
            model.compile(make_optimizer(config, 6), LOSSES["weighted_loss"], jit_compile=xla)
        losses.append([float(model.train_on_batch(_images(), labels)) for _ in range(4)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("name", ["small_cnn", "resnet_50"])
def test_a_saved_model_is_the_same(tmp_path: Path, name: str) -> None:
    config = trainer_data.tiny_config(pretrained_model=name).base
    model = base_model.build_base_model(config, 32, PRIORS)
    path = str(tmp_path / "model.keras")
    model_files.save_model(model, path)
    again = model_files.load_model(path)
    expected = model(_images(), training=False)
    assert np.allclose(again(_images(), training=False), expected, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.slow
def test_a_saved_inception_resnet_is_the_same(tmp_path: Path) -> None:
    config = trainer_data.tiny_config(pretrained_model="inception_resnet").base
    model = base_model.build_base_model(config, 75)
    path = str(tmp_path / "model.keras")
    model_files.save_model(model, path)
    images = np.random.default_rng(0).integers(0, 256, (1, 75, 75, 3), dtype=np.uint8)
    again = model_files.load_model(path)(images, training=False)
    assert np.allclose(again, model(images, training=False), atol=1e-6)


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_an_exported_model_serves_probabilities(tmp_path: Path, tta: str) -> None:
    model = base_model.build_base_model(trainer_data.tiny_config().base, 32, PRIORS)
    folder = tmp_path / "export"
    for _ in range(2):  # The second replaces the first.
        model_files.export(base_model.export_model(model, tta), str(folder))
    loaded = tf.saved_model.load(str(folder))
    served = loaded.serve(tf.constant(_images()))
    assert set(served) == {"embedding", "logits", "probabilities"}
    scoring = base_model.at_test_time(model, tta)
    expected = metrics.sigmoid(scoring(_images(), training=False).numpy())
    assert np.allclose(served["probabilities"], expected, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["export"]
