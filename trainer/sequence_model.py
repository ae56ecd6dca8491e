"""The sequence model: a bidirectional LSTM or GRU stack over a series' slices."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from beam_pipelines import schema
from beam_pipelines.errors import require
from configs import SequenceConfig

_CELLS = {"lstm": layers.LSTM, "gru": layers.GRU}


def build_sequence_model(
    config: SequenceConfig, embedding_dim: int, num_slice_features: int, folds: int = 1
) -> Any:
    """Builds the sequence model.

    With `residual` the recurrent layers correct the base model's logits, and the correction starts
    at zero: training begins where the base model ended. Padding has no effect: it is set to zero
    first, differences to it are zero, recurrent layers skip it, and all other layers look at one
    slice at a time.

    Args:
        config: the sequence section.
        embedding_dim: width of the base models' embeddings.
        num_slice_features: width of the slice features.
        folds: how many base models the embeddings come from. The spaces of several have nothing
            in common, so that each has a projection of its own.

    Returns:
        A model from a dict to logits, float32 (batch, length, 6), for sequences of any length:
        `embeddings` float32 (batch, length, embedding_dim), `logits` float32 (batch, length, 6),
        of the base model, `slice_features` float32 (batch, length, num_slice_features), `mask`
        uint8 (batch, length), 1 where a slice is real; with several folds also `fold` int32
        (batch,), whose model the embeddings are of. Inputs that the config does not use are there
        all the same.

    Raises:
        UserError: the config leaves no input.
    """
    inputs = {
        "embeddings": keras.Input((None, embedding_dim), name="embeddings"),
        "logits": keras.Input((None, schema.NUM_LABELS), name="logits"),
        "slice_features": keras.Input((None, num_slice_features), name="slice_features"),
        # Not bool: before it trains on several devices, Keras adds up a batch of each.
        "mask": keras.Input((None,), dtype="uint8", name="mask"),
    }
    if folds > 1:
        inputs["fold"] = keras.Input((), dtype="int32", name="fold")
    real = ops.expand_dims(inputs["mask"], -1) > 0
    # Padding is set to zero before anything else: what it holds could be no number.
    shown = {
        name: ops.where(real, inputs[name], 0.0)
        for name in ("embeddings", "logits", "slice_features")
    }
    x = _concatenate(_parts(config, inputs, shown, folds), "slices")
    x = layers.Dropout(config.dropout_rate, name="dropout_0")(x)
    mask = recurrent_mask(inputs["mask"])
    for number in range(1, config.num_layers + 1):
        # As they are by default: other activations, or GRU without reset_after, lose cuDNN.
        cell = _CELLS[config.cell](config.cell_size, return_sequences=True)
        x = layers.Bidirectional(cell, name=f"{config.cell}_{number}")(x, mask=mask)
        x = layers.Dropout(config.dropout_rate, name=f"dropout_{number}")(x)
    return keras.Model(inputs, _head(config, shown["logits"], x), name="sequence_model")


def _parts(
    config: SequenceConfig, inputs: dict[str, Any], shown: dict[str, Any], folds: int
) -> list[Any]:
    """What the recurrent layers are shown of each slice: (batch, length, width) each."""
    parts = []
    if config.use_embeddings or config.use_differences:
        # Each embedding by its own mean and variance: nothing is fitted on the data.
        x = layers.LayerNormalization(name="normalize")(shown["embeddings"])
        if folds > 1:
            x = _project(x, inputs["fold"], folds, 2 * config.cell_size)
        parts += [x] if config.use_embeddings else []
        mask = ops.expand_dims(ops.cast(inputs["mask"], "float32"), -1)
        parts += differences(x, mask) if config.use_differences else []
    if config.use_logits:
        parts.append(shown["logits"])
    if config.use_slice_features:
        parts.append(shown["slice_features"])
    require(
        bool(parts),
        "SequenceConfig: use_embeddings, use_differences, use_logits and use_slice_features are "
        "all false, so that nothing is left to look at; set one of them",
    )
    return parts


def _concatenate(parts: Sequence[Any], name: str) -> Any:
    return layers.Concatenate(name=name)(parts) if len(parts) > 1 else parts[0]


def _head(config: SequenceConfig, base_logits: Any, x: Any) -> Any:
    if not config.residual:
        return layers.Dense(schema.NUM_LABELS, name="head")(x)
    head = layers.Dense(schema.NUM_LABELS, kernel_initializer="zeros", name="correction")
    return layers.Add(name="corrected_logits")([base_logits, head(x)])


def differences(x: Any, mask: Any) -> list[Any]:
    """Each slice less the one below, and the one above less it; zero where either is not real.

    Args:
        x: float32 (batch, length, width).
        mask: float32 (batch, length, 1), 1 where a slice is real.

    Returns:
        Two tensors of the shape of `x`.
    """
    both = mask[:, 1:] * mask[:, :-1]
    steps = (x[:, 1:] - x[:, :-1]) * both
    return [ops.pad(steps, [[0, 0], [1, 0], [0, 0]]), ops.pad(steps, [[0, 0], [0, 1], [0, 0]])]


def recurrent_mask(mask: Any) -> Any:
    """The mask of the recurrent layers: the first slice of every sequence counts as real.

    It is, but for the rows that fill up a batch of evaluation, of which no slice is real: on GPUs
    cuDNN refuses a sequence without any (`_assert_valid_mask` of Keras's TensorFlow backend).

    Args:
        mask: uint8 (batch, length).

    Returns:
        bool (batch, length).
    """
    real = ops.cast(mask, "bool")
    return ops.concatenate([ops.ones_like(real[:, :1]), real[:, 1:]], axis=1)


def _project(x: Any, fold: Any, folds: int, max_width: int) -> Any:
    """Multiplies embeddings with the matrix of their fold; all folds start from the same one.

    Each sequence's matrix is picked first: the product with the matrices of all folds, of which one
    is kept, took three times as long (32 x 60 slices, 1536 to 512, five folds, two cores).

    Args:
        x: float32 (batch, length, embedding_dim).
        fold: int32 (batch,).
        folds: how many there are.
        max_width: of the result; embeddings are not widened.

    Returns:
        float32 (batch, length, width).
    """
    embedding_dim = x.shape[-1]
    width = min(embedding_dim, max_width)
    # Glorot's limit for one matrix: the layer holds `folds` of them, a row each.
    limit = math.sqrt(6 / (embedding_dim + width))
    matrices = layers.Dense(
        embedding_dim * width,
        use_bias=False,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        name="fold_matrices",
    )
    # Dense, not Embedding: its gradient would be sparse, which clipping and decay are not made for.
    picked = matrices(ops.one_hot(fold, folds))
    matrices.kernel.assign(np.tile(ops.convert_to_numpy(matrices.kernel)[:1], (folds, 1)))
    matrix = layers.Reshape((embedding_dim, width), name="fold_matrix")(picked)
    return ops.matmul(x, matrix)


def export_model(model: Any) -> Any:
    """What `--export` saves: named outputs `logits` and `probabilities`."""
    probabilities = layers.Activation("sigmoid", name="probabilities")(model.output)
    return keras.Model(model.input, {"logits": model.output, "probabilities": probabilities})
