"""CNNs that make an embedding of an image: float32 in [-1, 1] to a pooled vector."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from beam_pipelines import storage
from beam_pipelines.errors import UserError, require
from trainer import model_files


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Attributes:
        build: makes the model for an image size and Keras's `weights` (None or "imagenet").
        embedding_dim: width of the pooled output.
        min_image_size: the smallest image it takes.
        has_imagenet: whether Keras has ImageNet weights of it.
    """

    build: Callable[[int, str | None], Any]
    embedding_dim: int
    min_image_size: int
    has_imagenet: bool = True


def build_backbone(name: str, image_size: int, pretrained_weights: str) -> Any:
    """Builds a backbone and loads what it starts from.

    Args:
        name: a key of BACKBONES.
        image_size: height and width of the images.
        pretrained_weights: none, imagenet, or a `.keras` or `.weights.h5` file with the weights
            of this backbone or (`.keras`) of a base model that has it.

    Returns:
        A model from float32 (batch, image_size, image_size, 3) to (batch, embedding_dim).

    Raises:
        UserError: the image is too small, or the weights are missing or do not fit.
    """
    backbone = BACKBONES[name]
    require(
        image_size >= backbone.min_image_size,
        f"{name}: received images of {image_size} pixels; it takes {backbone.min_image_size} or "
        "more: raise examples.image_size and build the examples again",
    )
    if pretrained_weights == "imagenet":
        return _synchronized(_from_imagenet(name, backbone, image_size))
    model = _synchronized(backbone.build(image_size, None))
    if pretrained_weights != "none":
        _load_weights(model, name, pretrained_weights)
    return model


def _from_imagenet(name: str, backbone: Backbone, image_size: int) -> Any:
    require(
        backbone.has_imagenet,
        f"pretrained_weights: received imagenet, which {name} does not have; give none or a file",
    )
    try:
        return backbone.build(image_size, "imagenet")
    except Exception as error:
        # Keras raises a bare Exception when it cannot download; anything else is a defect.
        if "URL fetch failure" not in str(error):
            raise
        raise UserError(
            f"pretrained_weights: received imagenet, but Keras could not download the weights of "
            f"{name} ({' '.join(str(error).split())}); connect to the internet, or save them on "
            "a machine that is connected and pass the file, or give none"
        ) from error


def _load_weights(model: Any, name: str, path: str) -> None:
    """Loads a file's weights into a backbone.

    Raises:
        UserError: the file is missing, of another kind, or holds other shapes.
    """
    where = f"pretrained_weights {path}"
    require(
        path.endswith((".keras", ".h5")),
        f"{where}: not a known kind of weights; give none, imagenet or a .keras or .weights.h5 "
        "file",
    )
    require(storage.exists(path), f"{where}: no such file; give none, imagenet or an existing file")
    wrong = f"{where}: does not hold the weights of {name}"
    if path.endswith(".h5"):
        with model_files.local_copy(path) as local:
            try:
                model.load_weights(local)
            except (ValueError, OSError, KeyError) as error:
                raise UserError(f"{wrong}: {' '.join(str(error).split())}") from error
        return
    try:
        saved = model_files.load_model(path)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{where}: not a Keras model: {' '.join(str(error).split())}") from error
    if any(layer.name == "backbone" for layer in saved.layers):
        saved = saved.get_layer("backbone")
    received = [tuple(weight.shape) for weight in saved.weights]
    expected = [tuple(weight.shape) for weight in model.weights]
    require(
        len(received) == len(expected),
        f"{wrong}: received {len(received)} weights, expected {len(expected)}",
    )
    for weight, got, want in zip(model.weights, received, expected, strict=True):
        require(got == want, f"{wrong}: {weight.path} has shape {got}, expected {want}")
    model.set_weights(saved.get_weights())


def _synchronized(model: Any) -> Any:
    """Makes batch statistics those of the whole batch, however many devices share it."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = True
    return model


def _application(build: Callable[..., Any]) -> Callable[[int, str | None], Any]:
    def build_for(image_size: int, weights: str | None) -> Any:
        shape = (image_size, image_size, 3)
        return build(
            include_top=False, weights=weights, input_shape=shape, pooling="avg", name="backbone"
        )

    return build_for


def _small_cnn(image_size: int, weights: str | None) -> Any:
    """A residual network of 0.2 million weights that learns from nothing on two CPU cores.

    It halves by pooling: with strided convolutions it needed three times the epochs on phantoms.
    Half of the embedding is the mean over the image, half the maximum: a bleed may be a few
    pixels, which a mean over the head dilutes.
    """
    del weights  # There are none.
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = _convolution(inputs, 16, strides=2)
    for filters in (32, 64, 96):
        x = layers.MaxPooling2D()(_convolution(x, filters))
        x = layers.Add()([x, _convolution(x, filters)])
    x = _convolution(x, 64, kernel_size=1)
    pooled = [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    return keras.Model(inputs, layers.Concatenate()(pooled), name="backbone")


def _convolution(x: Any, filters: int, kernel_size: int = 3, strides: int = 1) -> Any:
    x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False)(x)
    # A run of few hundred steps must not be judged by statistics of its start.
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation("relu")(x)


BACKBONES: dict[str, Backbone] = {
    "inception_resnet": Backbone(_application(keras.applications.InceptionResNetV2), 1536, 75),
    "resnet_50": Backbone(_application(keras.applications.ResNet50V2), 2048, 32),
    "small_cnn": Backbone(_small_cnn, 128, 16, has_imagenet=False),
}
