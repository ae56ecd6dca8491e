"""Backbones: widths, and what pretrained weights may be."""

from pathlib import Path

import keras
import numpy as np
import pytest

from beam_pipelines.errors import UserError
from trainer import backbones, model_files


@pytest.mark.parametrize(
    ("name", "width", "size"),
    [("small_cnn", 128, 32), ("resnet_50", 2048, 32), ("inception_resnet", 1536, 75)],
)
def test_embedding_width_and_a_forward_pass(name: str, width: int, size: int) -> None:
    model = backbones.build_backbone(name, size, "none")
    assert model.output_shape == (None, width)
    assert backbones.BACKBONES[name].embedding_dim == width
    output = model(np.zeros((1, size, size, 3), np.float32), training=False)
    assert np.all(np.isfinite(output))
    norms = [v for v in model.layers if isinstance(v, keras.layers.BatchNormalization)]
    assert all(layer.synchronized for layer in norms)


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
    with pytest.raises(UserError, match=r"resnet.ckpt: not a known kind of weights"):
        backbones.build_backbone("small_cnn", 32, "resnet.ckpt")


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
