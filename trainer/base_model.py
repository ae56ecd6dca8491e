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
    config: BaseConfig, image_size: int, label_priors: Mapping[str, float] | None = None
) -> Any:
    """Builds the base model.

    The model takes the stored bytes and scales them itself, so that training, embedding and an
    exported model cannot differ in it.

    Args:
        config: the base section.
        image_size: height and width of the images.
        label_priors: share of positive slices of each subtype in the train split, which the
            model then starts from; half where None.

    Returns:
        A model from uint8 (batch, image_size, image_size, 3) to logits, float32 (batch, 6).

    Raises:
        UserError: see `build_backbone`.
    """
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    # 0..255 to -1..1, for every backbone.
    scaled = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(images)
    backbone = build_backbone(config.pretrained_model, image_size, config.pretrained_weights)
    # A layer by this name, whatever the backbone's last one is called.
    embedding = layers.Activation("linear", dtype="float32", name=EMBEDDING)(backbone(scaled))
    dropped = layers.Dropout(config.dropout_rate, name="dropout")(embedding)
    bias = "zeros" if label_priors is None else keras.initializers.Constant(logits_of(label_priors))
    head = layers.Dense(schema.NUM_LABELS, bias_initializer=bias, dtype="float32", name=LOGITS)
    return keras.Model(images, head(dropped), name="base_model")


def logits_of(label_priors: Mapping[str, float]) -> list[float]:
    """Logits of the priors, in the order of schema.SUBTYPES; finite for 0 and 1 too."""
    priors = np.clip([label_priors[name] for name in schema.SUBTYPES], 1e-4, 1 - 1e-4)
    return [float(v) for v in np.log(priors / (1 - priors))]


def embedding_model(model: Any) -> Any:
    """A base model's `(embedding, logits)`: float32 (batch, embedding_dim) and (batch, 6)."""
    return keras.Model(model.input, [model.get_layer(EMBEDDING).output, model.output])


def export_model(model: Any) -> Any:
    """What `--export` saves: named outputs `embedding`, `logits` and `probabilities`."""
    probabilities = layers.Activation("sigmoid", name="probabilities")(model.output)
    outputs = {
        EMBEDDING: model.get_layer(EMBEDDING).output,
        LOGITS: model.output,
        "probabilities": probabilities,
    }
    return keras.Model(model.input, outputs)
