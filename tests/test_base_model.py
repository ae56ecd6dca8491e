"""The base model: what goes in, what comes out, what is saved."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import trainer_data

from beam_pipelines import schema
from trainer import base_model, metrics, model_files

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


def test_an_exported_model_serves_probabilities(tmp_path: Path) -> None:
    model = base_model.build_base_model(trainer_data.tiny_config().base, 32, PRIORS)
    folder = tmp_path / "export"
    for _ in range(2):  # The second replaces the first.
        model_files.export(base_model.export_model(model), str(folder))
    loaded = tf.saved_model.load(str(folder))
    served = loaded.serve(tf.constant(_images()))
    assert set(served) == {"embedding", "logits", "probabilities"}
    expected = metrics.sigmoid(model(_images(), training=False).numpy())
    assert np.allclose(served["probabilities"], expected, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["export"]
