"""Backbones: widths, and what pretrained weights may be."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import slim_networks
import tensorflow as tf

from beam_pipelines.errors import UserError
from configs import sections
from trainer import backbones, model_files

SIZES = {
    "inception_resnet": 75,
    "resnet_50": 32,
    "efficientnet_v2_b0": 32,
    "efficientnet_v2_s": 32,
    "convnext_tiny": 32,
    "small_cnn": 32,
}


def _images(name: str, num_channels: int = 3, count: int = 2) -> np.ndarray:
    shape = (count, SIZES[name], SIZES[name], num_channels)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def test_every_backbone_of_the_settings_is_here_and_tried() -> None:
    assert set(backbones.BACKBONES) == set(sections.BACKBONES) == set(SIZES)


@pytest.mark.parametrize(
    ("name", "width", "num_channels"),
    [
        ("small_cnn", 128, 3),
        ("resnet_50", 2048, 6),
        ("inception_resnet", 1536, 3),
        ("efficientnet_v2_b0", 1280, 6),
        ("efficientnet_v2_s", 1280, 3),
        ("convnext_tiny", 768, 6),
    ],
)
def test_embedding_width_and_a_forward_pass(name: str, width: int, num_channels: int) -> None:
    model = backbones.build_backbone(name, SIZES[name], "none", num_channels)
    assert model.input_shape == (None, SIZES[name], SIZES[name], num_channels)
    assert model.output_shape == (None, width)
    assert model.name == "backbone"
    assert backbones.BACKBONES[name].embedding_dim == width
    output = model(_images(name, num_channels), training=False)
    assert np.all(np.isfinite(output))
    norms = [v for v in model.layers if isinstance(v, keras.layers.BatchNormalization)]
    assert all(layer.synchronized for layer in norms)
    assert norms or name == "convnext_tiny"


@pytest.mark.parametrize(
    ("name", "application"),
    [
        ("efficientnet_v2_b0", keras.applications.EfficientNetV2B0),
        ("convnext_tiny", keras.applications.ConvNeXtTiny),
        pytest.param(
            "efficientnet_v2_s", keras.applications.EfficientNetV2S, marks=pytest.mark.slow
        ),
    ],
)
def test_images_are_scaled_as_keras_scales_pixels(
    tmp_path: Path, name: str, application: Any
) -> None:
    images = _images(name)
    expected = application(
        include_top=False, weights=None, input_shape=images.shape[1:], pooling="avg"
    )
    # What a user saves on a machine that may download.
    path = str(tmp_path / "saved.weights.h5")
    expected.save_weights(path)
    model = backbones.build_backbone(name, SIZES[name], path)
    received = model(images, training=False)
    pixels = (images + 1) * 127.5
    assert np.allclose(received, expected(pixels, training=False), rtol=1e-3, atol=1e-5)
    assert not np.allclose(received, expected(images, training=False), rtol=1e-1, atol=1e-5)


def _train_step(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """The gradients of a loss on a model in training."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(tf.cast(model(images, training=True), tf.float32)))
    return [np.asarray(v) for v in tape.gradient(loss, model.trainable_variables)]


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    """The policy of the parameter, for one test."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy(before)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("small_cnn", "mixed_bfloat16"),
        ("efficientnet_v2_b0", "float32"),
        ("convnext_tiny", "float32"),
        pytest.param("efficientnet_v2_b0", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("efficientnet_v2_s", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("resnet_50", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("inception_resnet", "mixed_bfloat16", marks=pytest.mark.slow),
    ],
    indirect=["policy"],
)
def test_a_model_with_a_backbone_is_saved_and_trained(
    tmp_path: Path, name: str, policy: str
) -> None:
    backbone = backbones.build_backbone(name, SIZES[name], "none", 6)
    images = _images(name, 6)
    inputs = keras.Input(images.shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(6, dtype="float32")(backbone(inputs)))
    model_files.save_model(model, str(tmp_path / "model.keras"))
    again = model_files.load_model(str(tmp_path / "model.keras"))
    assert np.allclose(again(images, training=False), model(images, training=False), atol=1e-5)
    assert again.get_layer("backbone").output_shape == backbone.output_shape
    embedding = again.get_layer("backbone")(images, training=False)
    assert embedding.dtype == (tf.bfloat16 if policy == "mixed_bfloat16" else tf.float32)
    assert all(weight.dtype == "float32" for weight in again.weights)
    gradients = _train_step(again, images)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert sum(np.any(gradient != 0) for gradient in gradients) > 0.8 * len(gradients)


def _randomized(model: Any) -> Any:
    """A model with other statistics and biases than zeros and ones."""
    random = np.random.default_rng(1)
    weights = model.get_weights()
    model.set_weights([w + random.uniform(0, 0.1, w.shape).astype(np.float32) for w in weights])
    return model


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("small_cnn", ".weights.h5"), ("small_cnn", ".keras"), ("convnext_tiny", ".keras")],
)
def test_two_equal_groups_are_as_three_channels(tmp_path: Path, name: str, suffix: str) -> None:
    saved = _randomized(backbones.build_backbone(name, SIZES[name], "none"))
    path = str(tmp_path / f"saved{suffix}")
    if suffix == ".keras":
        model_files.save_model(saved, path)
    else:
        saved.save_weights(path)
    model = backbones.build_backbone(name, SIZES[name], path, 6)
    images = _images(name)
    received = model(np.concatenate([images, images], axis=-1), training=False)
    expected = saved(images, training=False)
    assert np.allclose(received, expected, rtol=1e-4, atol=1e-5)
    # The second group counts.
    other = model(np.concatenate([images, images[::-1]], axis=-1), training=False)
    assert not np.allclose(other, expected, rtol=1e-2)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_of_six_channels_serve_six_alone(tmp_path: Path, suffix: str) -> None:
    saved = backbones.build_backbone("small_cnn", 32, "none", 6)
    path = str(tmp_path / f"saved{suffix}")
    if suffix == ".keras":
        model_files.save_model(saved, path)
    else:
        saved.save_weights(path)
    model = backbones.build_backbone("small_cnn", 32, path, 6)
    for weight, expected in zip(model.get_weights(), saved.get_weights(), strict=True):
        assert np.array_equal(weight, expected)
    with pytest.raises(UserError, match=f"saved{suffix}: does not hold the weights of small_cnn"):
        backbones.build_backbone("small_cnn", 32, path)


@pytest.mark.parametrize("num_channels", [3, 6])
def test_imagenet_weights_of_three_channels_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_channels: int
) -> None:
    """The download is a file of the network's own weights."""
    published = keras.applications.EfficientNetV2B0(include_top=False, weights=None)
    path = str(tmp_path / "published.weights.h5")
    published.save_weights(path)
    monkeypatch.setattr(
        "keras.src.applications.efficientnet_v2.file_utils.get_file", lambda *args, **kwargs: path
    )
    model = backbones.build_backbone("efficientnet_v2_b0", 32, "imagenet", num_channels)
    kernel = model.get_layer("stem_conv").get_weights()[0]
    expected = published.get_layer("stem_conv").get_weights()[0]
    groups = np.split(kernel, num_channels // 3, axis=2)
    assert all(np.allclose(group * len(groups), expected) for group in groups)
    assert np.array_equal(
        model.get_layer("top_conv").get_weights()[0],
        published.get_layer("top_conv").get_weights()[0],
    )


@pytest.fixture(scope="module")
def slim_resnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("slim") / "resnet_v2_50.ckpt"
    slim_networks.write_checkpoint(path, slim_networks.draw("resnet_v2_50"))
    yield str(path)
    path.unlink()


def test_a_slim_checkpoint_and_its_pool_are_kept(slim_resnet: str, tmp_path: Path) -> None:
    images = _images("resnet_50", count=1)
    both = np.concatenate([images, images], axis=-1)
    arrays = slim_networks.draw("resnet_v2_50")
    expected = slim_networks.embeddings("resnet_v2_50", arrays, images)
    model = backbones.build_backbone("resnet_50", 32, slim_resnet)
    assert np.allclose(model(images, training=False), expected, rtol=1e-3, atol=1e-4)
    norms = [v for v in model.layers if isinstance(v, keras.layers.BatchNormalization)]
    assert norms and all(layer.synchronized for layer in norms)
    wide = backbones.build_backbone("resnet_50", 32, slim_resnet, 6)
    assert np.allclose(wide(both, training=False), expected, rtol=1e-3, atol=1e-4)
    # A model that was trained from it may be what another starts from.
    path = str(tmp_path / "saved.keras")
    model_files.save_model(model, path)
    again = backbones.build_backbone("resnet_50", 32, path, 6)
    assert np.allclose(again(both, training=False), expected, rtol=1e-3, atol=1e-4)


def test_a_slim_checkpoint_of_another_backbone_is_refused(slim_resnet: str) -> None:
    for name in ("small_cnn", "efficientnet_v2_b0", "convnext_tiny"):
        with pytest.raises(UserError, match=f"ckpt: TF-slim has no {name}; give none, .* or take"):
            backbones.build_backbone(name, 32, slim_resnet)


def test_an_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(UserError, match="inception_resnet: received images of 64 pixels; it takes"):
        backbones.build_backbone("inception_resnet", 64, "none")


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    saved = backbones.build_backbone("small_cnn", 32, "none")
    path = str(tmp_path / f"saved{suffix}")
    if suffix == ".keras":
        model_files.save_model(saved, path)
    else:
        saved.save_weights(path)
    # Another image size: a convolution does not mind.
    loaded = backbones.build_backbone("small_cnn", 48, path)
    for weight, expected in zip(loaded.get_weights(), saved.get_weights(), strict=True):
        assert np.array_equal(weight, expected)


def test_a_missing_or_unknown_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing.keras: no such file; give none, imagenet or"):
        backbones.build_backbone("small_cnn", 32, str(tmp_path / "nothing.keras"))
    with pytest.raises(UserError, match=r"nothing.ckpt: no such file; give none, imagenet or"):
        backbones.build_backbone("resnet_50", 32, str(tmp_path / "nothing.ckpt"))
    with pytest.raises(UserError, match=r"resnet.pb: not a known kind of weights"):
        backbones.build_backbone("small_cnn", 32, "resnet.pb")


def _other_model() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_of_another_model_are_refused(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f"other{suffix}")
    if suffix == ".keras":
        _other_model().save(path)
    else:
        _other_model().save_weights(path)
    with pytest.raises(UserError, match=f"other{suffix}: does not hold the weights of small_cnn"):
        backbones.build_backbone("small_cnn", 32, path)


def test_a_wrong_shape_names_the_weight(tmp_path: Path) -> None:
    saved = backbones.build_backbone("small_cnn", 32, "none")
    config = saved.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "Conv2D":
            layer["config"]["kernel_size"] = (1, 1)
            break
    path = tmp_path / "other.keras"
    keras.Model.from_config(config).save(path)
    with pytest.raises(UserError, match=r"/kernel has shape \(1, 1, .*expected"):
        backbones.build_backbone("small_cnn", 32, str(path))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for name in ("broken.keras", "broken.weights.h5"):
        path = tmp_path / name
        path.write_bytes(b"not a model")
        with pytest.raises(UserError, match=f"{name}: "):
            backbones.build_backbone("small_cnn", 32, str(path))


def test_imagenet_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise Exception("URL fetch failure on https://x: None -- unreachable")

    module = "keras.src.applications.resnet.file_utils.get_file"
    monkeypatch.setattr(module, no_network)
    with pytest.raises(UserError, match=r"could not download the weights of resnet_50 .* or give"):
        backbones.build_backbone("resnet_50", 32, "imagenet")
    with pytest.raises(UserError, match="imagenet, which small_cnn does not have"):
        backbones.build_backbone("small_cnn", 32, "imagenet")
