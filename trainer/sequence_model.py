"""The sequence model: a bidirectional LSTM stack over a series' slices."""

from typing import Any

import keras
from keras import layers

from beam_pipelines import schema
from configs import SequenceConfig


def build_sequence_model(
    config: SequenceConfig, embedding_dim: int, num_slice_features: int
) -> Any:
    """Builds the sequence model.

    The LSTMs correct the base model's logits, and the correction starts at zero: training begins
    where the base model ended. Padding has no effect: LSTMs skip it, and all other layers look at
    one slice at a time.

    Args:
        config: the sequence section.
        embedding_dim: width of the base model's embeddings.
        num_slice_features: width of the slice features.

    Returns:
        A model from a dict to logits, float32 (batch, length, 6), for sequences of any length:
        `embeddings` float32 (batch, length, embedding_dim), `logits` float32 (batch, length, 6),
        of the base model, `slice_features` float32 (batch, length, num_slice_features), `mask`
        uint8 (batch, length), 1 where a slice is real.
    """
    inputs = {
        "embeddings": keras.Input((None, embedding_dim), name="embeddings"),
        "logits": keras.Input((None, schema.NUM_LABELS), name="logits"),
        "slice_features": keras.Input((None, num_slice_features), name="slice_features"),
        # Not bool: before it trains on several devices, Keras adds up a batch of each.
        "mask": keras.Input((None,), dtype="uint8", name="mask"),
    }
    mask = keras.ops.cast(inputs["mask"], "bool")
    # Each embedding by its own mean and variance: nothing is fitted on the data.
    normalized = layers.LayerNormalization(name="normalize")(inputs["embeddings"])
    x = layers.Concatenate(name="slices")([normalized, inputs["logits"], inputs["slice_features"]])
    x = layers.Dropout(config.dropout_rate, name="dropout_0")(x)
    for number in range(1, config.num_layers + 1):
        lstm = layers.LSTM(config.cell_size, return_sequences=True)
        x = layers.Bidirectional(lstm, name=f"lstm_{number}")(x, mask=mask)
        x = layers.Dropout(config.dropout_rate, name=f"dropout_{number}")(x)
    head = layers.Dense(schema.NUM_LABELS, kernel_initializer="zeros", name="correction")
    logits = layers.Add(name="corrected_logits")([inputs["logits"], head(x)])
    return keras.Model(inputs, logits, name="sequence_model")


def export_model(model: Any) -> Any:
    """What `--export` saves: named outputs `logits` and `probabilities`."""
    probabilities = layers.Activation("sigmoid", name="probabilities")(model.output)
    return keras.Model(model.input, {"logits": model.output, "probabilities": probabilities})
