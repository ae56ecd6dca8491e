"""CNNs that make an embedding of an image: float32 in [-1, 1] to a pooled vector."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from beam_pipelines import storage
from beam_pipelines.errors import UserError, require
from trainer import model_files, pretrained


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Attributes:
        build: makes the model for an image size, a number of channels and Keras's `weights` (None
            or, with three channels, "imagenet").
        embedding_dim: width of the pooled output.
        min_image_size: the smallest image it takes.
        has_imagenet: whether Keras has ImageNet weights of it.
        slim_architecture: its name in `trainer.pretrained`, if TF-slim has it.
    """

    build: Callable[[int, int, str | None], Any]
    embedding_dim: int
    min_image_size: int
    has_imagenet: bool = True
    slim_architecture: str | None = None


def build_backbone(
    name: str, image_size: int, pretrained_weights: str, num_channels: int = 3
) -> Any:
    """Builds a backbone and loads what it starts from.

    Pretrained weights of three channels serve six too: the first convolution's kernel is repeated
    for the second group and halved, so that two equal groups give what three channels gave.

    Args:
        name: a key of BACKBONES.
        image_size: height and width of the images.
        pretrained_weights: none, imagenet, a `.keras` or `.weights.h5` file with the weights of
            this backbone or (`.keras`) of a base model that has it, or a TF-slim `.ckpt` file.
        num_channels: 3, or 6 for two groups of three.

    Returns:
        A model `backbone` from float32 (batch, image_size, image_size, num_channels) in [-1, 1] to
        (batch, embedding_dim).

    Raises:
        UserError: the image is too small, or the weights are missing or do not fit.
    """
    backbone = BACKBONES[name]
    require(
        image_size >= backbone.min_image_size,
        f"{name}: received images of {image_size} pixels; it takes {backbone.min_image_size} or "
        "more: raise examples.image_size and build the examples again",
    )
    if pretrained_weights == "none":
        return _synchronized(backbone.build(image_size, num_channels, None))
    if pretrained_weights == "imagenet":
        saved = _from_imagenet(name, image_size)
    elif pretrained_weights.endswith(".ckpt"):
        saved = _from_slim(name, image_size, pretrained_weights)
    else:
        saved = _from_file(name, image_size, pretrained_weights, num_channels)
    if saved.input_shape[-1] == num_channels:
        return _synchronized(saved)
    model = backbone.build(image_size, num_channels, None)
    return _synchronized(_with_weights_of(saved, model, name, pretrained_weights))


def _from_imagenet(name: str, image_size: int) -> Any:
    require(
        BACKBONES[name].has_imagenet,
        f"pretrained_weights: received imagenet, which {name} does not have; give none or a file",
    )
    try:
        return BACKBONES[name].build(image_size, 3, "imagenet")
    except Exception as error:
        # Keras raises a bare Exception when it cannot download; anything else is a defect.
        if "URL fetch failure" not in str(error):
            raise
        raise UserError(
            f"pretrained_weights: received imagenet, but Keras could not download the weights of "
            f"{name} ({' '.join(str(error).split())}); connect to the internet, or save them on "
            "a machine that is connected and pass the file, or give none"
        ) from error


def _from_slim(name: str, image_size: int, path: str) -> Any:
    architecture = BACKBONES[name].slim_architecture
    if architecture is None:
        known = ", ".join(key for key, value in BACKBONES.items() if value.slim_architecture)
        raise UserError(
            f"pretrained_weights {path}: TF-slim has no {name}; give none, imagenet or a .keras or "
            f".weights.h5 file, or take one of {known}"
        )
    return pretrained.from_slim_checkpoint(path, architecture, image_size)


def _from_file(name: str, image_size: int, path: str, num_channels: int) -> Any:
    """The backbone with the weights of a Keras file, with `num_channels` or the file's channels.

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
    model = BACKBONES[name].build(image_size, num_channels, None)
    if path.endswith(".keras"):
        try:
            saved = model_files.load_model(path)
        except (ValueError, TypeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{where}: not a Keras model: {reason}") from error
        if any(layer.name == "backbone" for layer in saved.layers):
            saved = saved.get_layer("backbone")
        return _with_weights_of(saved, model, name, path)
    try:
        with model_files.local_copy(path) as local:
            model.load_weights(local)
    except (ValueError, OSError, KeyError) as error:
        if num_channels != 3:
            # The file does not say of how many channels it is.
            return _from_file(name, image_size, path, 3)
        wrong = f"{where}: does not hold the weights of {name}"
        raise UserError(f"{wrong}: {' '.join(str(error).split())}") from error
    return model


def _with_weights_of(saved: Any, model: Any, name: str, path: str) -> Any:
    """The backbone `model` with the weights of another that has as many or half its channels.

    Raises:
        UserError: the weights are others.
    """
    if pretrained.has_slim_pool(saved):
        # A property of the network that its weights do not hold.
        model = pretrained.with_slim_pool(model)
    wrong = f"pretrained_weights {path}: does not hold the weights of {name}"
    values = saved.get_weights()
    require(
        len(values) == len(model.weights),
        f"{wrong}: received {len(values)} weights, expected {len(model.weights)}",
    )
    for place, weight in enumerate(model.weights):
        got, want = values[place].shape, tuple(weight.shape)
        if len(got) == 4 and got[2] == 3 and want == (*got[:2], 6, got[3]):
            values[place] = np.concatenate([values[place]] * 2, axis=2) / 2
            continue
        require(got == want, f"{wrong}: {weight.path} has shape {got}, expected {want}")
    model.set_weights(values)
    return model


def _synchronized(model: Any) -> Any:
    """Makes batch statistics those of the whole batch, however many devices share it."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = True
    return model


def _application(
    build: Callable[..., Any], scaling: tuple[list[float], list[float]] | None = None
) -> Callable[[int, int, str | None], Any]:
    """A builder of a network of keras.applications.

    Args:
        build: the function of keras.applications.
        scaling: scale and offset of each of three channels, from [-1, 1] to what it was trained
            with; None where that is [-1, 1].
    """

    def build_for(image_size: int, num_channels: int, weights: str | None) -> Any:
        inputs = x = keras.Input((image_size, image_size, num_channels), name="image")
        arguments: dict[str, Any] = {}
        if scaling is not None:
            factors, offsets = (values * (num_channels // 3) for values in scaling)
            x = layers.Rescaling(factors, offsets, name="scale")(inputs)
            arguments["include_preprocessing"] = False
        # Keras takes its own names for those of weights; and of a tensor any number of channels.
        model = build(
            include_top=False, weights=weights, input_tensor=x, pooling="avg", **arguments
        )
        return keras.Model(inputs, model.output, name="backbone")

    return build_for


def _small_cnn(image_size: int, num_channels: int, weights: str | None) -> Any:
    """A residual network of 0.2 million weights that learns from nothing on two CPU cores.

    It halves by pooling: with strided convolutions it needed three times the epochs on phantoms.
    Half of the embedding is the mean over the image, half the maximum: a bleed may be a few
    pixels, which a mean over the head dilutes.
    """
    del weights  # There are none.
    inputs = keras.Input((image_size, image_size, num_channels), name="image")
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


# Mean and standard deviation of ImageNet's pixels in [0, 1], as in keras.applications.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STANDARDIZED = (
    [0.5 / deviation for deviation in _DEVIATION],
    [(0.5 - mean) / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
)
# EfficientNetV2 S to L divide pixels of 0 to 255 by 128 and subtract 1.
_BY_128 = ([127.5 / 128] * 3, [127.5 / 128 - 1] * 3)

BACKBONES: dict[str, Backbone] = {
    "inception_resnet": Backbone(
        _application(keras.applications.InceptionResNetV2),
        1536,
        75,
        slim_architecture="inception_resnet_v2",
    ),
    "resnet_50": Backbone(
        _application(keras.applications.ResNet50V2), 2048, 32, slim_architecture="resnet_v2_50"
    ),
    "efficientnet_v2_b0": Backbone(
        _application(keras.applications.EfficientNetV2B0, _STANDARDIZED), 1280, 32
    ),
    "efficientnet_v2_s": Backbone(
        _application(keras.applications.EfficientNetV2S, _BY_128), 1280, 32
    ),
    "convnext_tiny": Backbone(
        _application(keras.applications.ConvNeXtTiny, _STANDARDIZED), 768, 32
    ),
    "small_cnn": Backbone(_small_cnn, 128, 16, has_imagenet=False),
}
