"""Backbones from TF-slim's published checkpoints (github.com/tensorflow/models, research/slim).

The networks are those of slim's `nets/inception_resnet_v2.py` and `nets/resnet_v2.py`, with the
default arguments.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from beam_pipelines import storage
from beam_pipelines.errors import UserError, require
from trainer import model_files

# Keras's names of variables where slim has others.
_SLIM_NAMES = {"kernel": "weights", "bias": "biases"}


def from_slim_checkpoint(path: str, architecture: str, input_size: int) -> Any:
    """Builds a backbone with the weights of a TF-slim checkpoint.

    Variables are picked by their whole name; others in the file (slots of the optimizer, the
    classifier) are ignored.

    Args:
        path: a checkpoint of one file (version 1), local or in a bucket.
        architecture: a key of ARCHITECTURES.
        input_size: height and width of the images.

    Returns:
        A Keras model `backbone` from float32 (batch, input_size, input_size, 3) in [-1, 1] to
        slim's embeddings after the global average pool, float32 (batch, 1536 or 2048).

    Raises:
        UserError: the architecture is unknown, or the file is missing, no checkpoint, or lacks a
            variable or holds it in another shape.
    """
    where = f"pretrained_weights {path}"
    require(
        architecture in ARCHITECTURES,
        f"{where}: received architecture {architecture}; give one of {', '.join(ARCHITECTURES)}",
    )
    require(
        storage.exists(path),
        f"{where}: no such file; give none, imagenet or the one .ckpt file that slim publishes",
    )
    build, scopes_of = ARCHITECTURES[architecture]
    wrong = f"{where}: not a TF-slim checkpoint of {architecture} in one file"
    with model_files.local_copy(path) as local:
        require(Path(local).is_file(), f"{wrong}: received a folder; give the .ckpt file")
        with _reading(wrong):
            reader = tf.train.load_checkpoint(local)
            shapes = reader.get_variable_to_shape_map()
        model = build(input_size)
        for weight, name in _slim_variables(model, scopes_of(model)):
            expected, received = tuple(weight.shape), shapes.get(name)
            require(
                received is not None and tuple(received) == expected,
                f"{wrong}: variable {name}: received "
                f"{'none' if received is None else f'shape {tuple(received)}'}, expected shape "
                f"{expected}; give the file that slim publishes",
            )
            with _reading(wrong):
                weight.assign(reader.get_tensor(name))
    return model


@contextlib.contextmanager
def _reading(wrong: str) -> Iterator[None]:
    """Turns what TensorFlow raises over a file that is no checkpoint into a UserError."""
    try:
        yield
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(f"{wrong}: {' '.join(str(error).split())}") from error


def _slim_variables(model: Any, scopes: dict[str, str]) -> Iterator[tuple[Any, str]]:
    """Every variable of a model and its name in slim.

    Args:
        model: the Keras model.
        scopes: slim's scope of each layer that has variables, by the layer's name.
    """
    for layer in model.layers:
        for weight in layer.weights:
            yield weight, f"{scopes[layer.name]}/{_SLIM_NAMES.get(weight.name, weight.name)}"


def _inception_resnet_v2(input_size: int) -> Any:
    """Keras's network, which is slim's as it is."""
    return keras.applications.InceptionResNetV2(
        include_top=False,
        weights=None,
        input_shape=(input_size, input_size, 3),
        pooling="avg",
        name="backbone",
    )


def _inception_resnet_v2_scopes(model: Any) -> dict[str, str]:
    """Slim's scope of each layer of Keras's InceptionResNetV2.

    Keras numbers the convolutions and the batch normalizations in the order in which it creates
    them, which is that of slim's source; only the last ones and those of residuals have names.
    """
    root = "InceptionResnetV2"
    names = [layer.name for layer in model.layers]
    convolutions = _numbered(names, "conv2d")
    norms = _numbered(names, "batch_normalization")
    scopes = {"conv_7b": f"{root}/Conv2d_7b_1x1", "conv_7b_bn": f"{root}/Conv2d_7b_1x1/BatchNorm"}
    for convolution, norm, scope in zip(
        convolutions, norms, _inception_convolutions(), strict=True
    ):
        scopes[convolution] = f"{root}/{scope}"
        scopes[norm] = f"{root}/{scope}/BatchNorm"
    for kind, blocks in _inception_blocks().items():
        for number, block in enumerate(blocks, start=1):
            scopes[f"{kind}_{number}_conv"] = f"{root}/{block}/Conv2d_1x1"
    return scopes


def _numbered(names: list[str], prefix: str) -> list[str]:
    """The names that Keras made of `prefix` (x, x_1, x_2 and so on), by number."""
    found = {
        int(name.removeprefix(prefix).removeprefix("_") or 0): name
        for name in names
        if name == prefix or name.removeprefix(f"{prefix}_").isdigit()
    }
    return [found[number] for number in sorted(found)]


def _inception_blocks() -> dict[str, list[str]]:
    """Slim's scopes of the residual blocks, by kind, from the input to the output."""
    return {
        "block35": [f"Repeat/block35_{number}" for number in range(1, 11)],
        "block17": [f"Repeat_1/block17_{number}" for number in range(1, 21)],
        "block8": [*(f"Repeat_2/block8_{number}" for number in range(1, 10)), "Block8"],
    }


def _inception_convolutions() -> list[str]:
    """Slim's scopes of the convolutions with batch normalization but the last, in order."""
    branches = {
        "Mixed_5b": ("1x1", "0a_1x1 0b_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"),
        "block35": ("1x1", "0a_1x1 0b_3x3", "0a_1x1 0b_3x3 0c_3x3"),
        "Mixed_6a": ("1a_3x3", "0a_1x1 0b_3x3 1a_3x3"),
        "block17": ("1x1", "0a_1x1 0b_1x7 0c_7x1"),
        "Mixed_7a": ("0a_1x1 1a_3x3", "0a_1x1 1a_3x3", "0a_1x1 0b_3x3 1a_3x3"),
        "block8": ("1x1", "0a_1x1 0b_1x3 0c_3x1"),
    }
    blocks = _inception_blocks()
    scopes = [f"Conv2d_{name}" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")]
    for kind, convolutions in branches.items():
        for scope in blocks.get(kind, [kind]):
            for number, chain in enumerate(convolutions):
                scopes += [f"{scope}/Branch_{number}/Conv2d_{name}" for name in chain.split()]
    return scopes


def _resnet_v2_50(input_size: int) -> Any:
    """Keras's network with slim's pool after the first convolution."""
    return with_slim_pool(
        keras.applications.ResNet50V2(
            include_top=False,
            weights=None,
            input_shape=(input_size, input_size, 3),
            pooling="avg",
            name="backbone",
        )
    )


def has_slim_pool(model: Any) -> bool:
    """Whether a model is a ResNet50V2 that pools as slim does after its first convolution."""
    pools = [layer for layer in model.layers if layer.name == "pool1_pool"]
    return any(getattr(pool, "padding", None) == "same" for pool in pools)


def with_slim_pool(model: Any) -> Any:
    """A copy of Keras's ResNet50V2, with new weights, that pools as slim does.

    Keras pads with zeros on every side and pools without padding. Slim pads as TensorFlow does for
    SAME: with nothing that a maximum sees, and for even sizes at the right and the bottom alone. So
    Keras's windows lie one pixel off, and its zeros win over negative values at the border.
    """

    def clone(layer: Any) -> Any:
        if layer.name == "pool1_pad":
            return layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
        config = layer.get_config()
        if layer.name == "pool1_pool":
            config["padding"] = "same"
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=clone)


def _resnet_v2_50_scopes(model: Any) -> dict[str, str]:
    """Slim's scope of each layer of Keras's ResNet50V2."""
    del model  # The names are fixed.
    root = "resnet_v2_50"
    scopes = {"conv1_conv": f"{root}/conv1", "post_bn": f"{root}/postnorm"}
    for block, units in enumerate((3, 4, 6, 3), start=1):
        for unit in range(1, units + 1):
            scope = f"{root}/block{block}/unit_{unit}/bottleneck_v2"
            for suffix, name in (
                ("preact_bn", "preact"),
                ("0_conv", "shortcut"),
                ("1_conv", "conv1"),
                ("1_bn", "conv1/BatchNorm"),
                ("2_conv", "conv2"),
                ("2_bn", "conv2/BatchNorm"),
                ("3_conv", "conv3"),
            ):
                # Keras counts the first convolution as a block.
                scopes[f"conv{block + 1}_block{unit}_{suffix}"] = f"{scope}/{name}"
    return scopes


ARCHITECTURES: dict[str, tuple[Callable[[int], Any], Callable[[Any], dict[str, str]]]] = {
    "inception_resnet_v2": (_inception_resnet_v2, _inception_resnet_v2_scopes),
    "resnet_v2_50": (_resnet_v2_50, _resnet_v2_50_scopes),
}
