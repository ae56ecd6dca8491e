"""The base model: a backbone over one slice, and six logits."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from beam_pipelines import schema
from configs import BaseConfig
from trainer.backbones import build_backbone

EMBEDDING = "embedding"
LOGITS = "logits"


def build_base_model(
    config: BaseConfig,
    image_size: int,
    label_priors: Mapping[str, float] | None = None,
    num_channels: int = 3,
) -> Any:
    """Builds the base model.

    The model takes the stored bytes and scales them itself, so that training, embedding and an
    exported model cannot differ in it. With a `precision` of 16 bits the backbone computes in
    them; weights, embedding and logits are float32.

    Args:
        config: the base section.
        image_size: height and width of the images.
        label_priors: share of positive slices of each subtype in the train split, which the
            model then starts from; half where None.
        num_channels: of the images.

    Returns:
        A model from uint8 (batch, image_size, image_size, num_channels) to logits, float32
        (batch, 6).

    Raises:
        UserError: see `build_backbone`.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        images = keras.Input((image_size, image_size, num_channels), dtype="uint8", name="image")
        # 0..255 to -1..1, for every backbone.
        scaled = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(images)
        backbone = build_backbone(
            config.pretrained_model, image_size, config.pretrained_weights, num_channels
        )
        # A layer by this name, whatever the backbone's last one is called.
        embedding = layers.Activation("linear", dtype="float32", name=EMBEDDING)(backbone(scaled))
        dropped = layers.Dropout(config.dropout_rate, dtype="float32", name="dropout")(embedding)
        bias = keras.initializers.Constant(logits_of(label_priors)) if label_priors else "zeros"
        head = layers.Dense(schema.NUM_LABELS, bias_initializer=bias, dtype="float32", name=LOGITS)
        return keras.Model(images, head(dropped), name="base_model")
    finally:
        keras.config.set_dtype_policy(before)


def logits_of(label_priors: Mapping[str, float]) -> list[float]:
    """Logits of the priors, in the order of schema.SUBTYPES; finite for 0 and 1 too."""
    priors = np.clip([label_priors[name] for name in schema.SUBTYPES], 1e-4, 1 - 1e-4)
    return [float(v) for v in np.log(priors / (1 - priors))]


def embedding_model(model: Any) -> Any:
    """A base model's `(embedding, logits)`: float32 (batch, embedding_dim) and (batch, 6)."""
    return keras.Model(model.input, [model.get_layer(EMBEDDING).output, model.output])


def with_mirror_images(model: Any) -> Any:
    """A model whose outputs are the means over an image and its mirror image (left to right)."""
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="image")
    seen, mirrored = model(images), model(keras.ops.flip(images, axis=2))
    if not isinstance(model.output, list):
        return keras.Model(images, layers.Average(dtype="float32")([seen, mirrored]))
    pairs = zip(seen, mirrored, strict=True)
    return keras.Model(images, [layers.Average(dtype="float32")(pair) for pair in pairs])


def at_test_time(model: Any, tta: str) -> Any:
    """A model as it scores: with a config's test-time augmentation, none or flip."""
    return with_mirror_images(model) if tta == "flip" else model


def export_model(model: Any, tta: str = "none") -> Any:
    """What `--export` saves: the model as it scores.

    Args:
        model: a base model.
        tta: the config's test-time augmentation.

    Returns:
        A model with the named outputs `embedding`, `logits` and `probabilities`.
    """
    embedding, logits = at_test_time(embedding_model(model), tta)(model.input)
    probabilities = layers.Activation("sigmoid", name="probabilities")(logits)
    outputs = {EMBEDDING: embedding, LOGITS: logits, "probabilities": probabilities}
    return keras.Model(model.input, outputs)
