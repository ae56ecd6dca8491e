"""Trained models as plain functions of NumPy arrays, for pipelines and evaluation.

Each is traced once, for one batch size, when it is loaded. A call cuts what it is given into
batches of that size and pads the last, so that it is never traced anew; the traced function holds
no state, so threads may call it at the same time. TensorFlow is imported when a model is loaded.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from beam_pipelines.errors import require
from beam_pipelines.tensorflow_setup import load_tensorflow
from trainer import model_files
from trainer.experiment import Experiment


class BaseScorer:
    """A base model: `embeddings, logits = scorer(images)`."""

    def __init__(self, model: Any, batch_size: int) -> None:
        import tensorflow as tf

        from trainer.base_model import embedding_model

        self.batch_size = batch_size
        self.image_size: int = model.input_shape[1]
        inner = embedding_model(model)
        self.embedding_dim: int = inner.output_shape[0][1]
        shape = (batch_size, *model.input_shape[1:])
        traced = tf.function(lambda images: inner(images, training=False))
        self._run = traced.get_concrete_function(tf.TensorSpec(shape, tf.uint8))
        # The traced function refers to the model's variables weakly.
        self._model = inner

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores any number of images.

        Args:
            images: uint8 of shape (num_slices, image_size, image_size, 3).

        Returns:
            Embeddings, float32 (num_slices, embedding_dim), and logits, float32 (num_slices, 6).
        """
        embeddings, logits = _in_batches(self._call, images, len(images), self.batch_size)
        return embeddings, logits

    def _call(self, images: np.ndarray) -> list[np.ndarray]:
        import tensorflow as tf

        return [output.numpy() for output in self._run(tf.constant(images))]


class SequenceScorer:
    """A sequence model: `logits = scorer(arrays)`."""

    def __init__(self, model: Any, max_to_keep: int, batch_size: int) -> None:
        import tensorflow as tf

        self.batch_size = batch_size
        self.max_to_keep = max_to_keep
        spec = {
            name: tf.TensorSpec((batch_size, max_to_keep, *tensor.shape[2:]), tensor.dtype)
            for name, tensor in model.input.items()
        }
        traced = tf.function(lambda arrays: model(arrays, training=False))
        self._run = traced.get_concrete_function(spec)
        self._dtypes = {name: s.dtype.as_numpy_dtype for name, s in spec.items()}
        self._model = model

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Scores any number of sequences.

        Args:
            arrays: `embeddings` float32 (num_sequences, max_to_keep, embedding_dim), `logits`
                float32 (num_sequences, max_to_keep, 6), `slice_features` float32 (num_sequences,
                max_to_keep, num_slice_features), `mask` (num_sequences, max_to_keep), True or 1
                where a slice is real.

        Returns:
            Logits, float32 (num_sequences, max_to_keep, 6); those of padding mean nothing.
        """
        num_sequences = len(arrays["mask"])
        given = {name: np.asarray(arrays[name], dtype) for name, dtype in self._dtypes.items()}
        return _in_batches(self._call, given, num_sequences, self.batch_size)[0]

    def _call(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        import tensorflow as tf

        given = {name: tf.constant(array) for name, array in arrays.items()}
        return [self._run(given).numpy()]


def load_base(experiment: Experiment, batch_size: int = 64) -> BaseScorer:
    """Loads a base experiment's model.

    Raises:
        UserError: it is not trained to the end.
    """
    return BaseScorer(_load(experiment), batch_size)


def load_sequence(experiment: Experiment, batch_size: int = 32) -> SequenceScorer:
    """Loads a sequence experiment's model.

    Raises:
        UserError: it is not trained to the end.
    """
    max_to_keep = experiment.config().sequence.max_to_keep
    return SequenceScorer(_load(experiment), max_to_keep, batch_size)


def _load(experiment: Experiment) -> Any:
    require(
        experiment.finished,
        f"{experiment.folder}: training has not finished; start it again with --model_id "
        f"{experiment.model_id} and the same settings",
    )
    load_tensorflow()
    return model_files.load_model(experiment.model_file)


def _in_batches(
    call: Callable[[Any], list[np.ndarray]], arrays: Any, count: int, batch_size: int
) -> list[np.ndarray]:
    """Calls with batches of exactly `batch_size`; at least one, so that shapes are known."""
    outputs = [
        call(_batch(arrays, start, batch_size)) for start in range(0, max(count, 1), batch_size)
    ]
    return [np.concatenate(parts)[:count] for parts in zip(*outputs, strict=True)]


def _batch(arrays: Any, start: int, batch_size: int) -> Any:
    if isinstance(arrays, dict):
        return {name: _batch(array, start, batch_size) for name, array in arrays.items()}
    part = arrays[start : start + batch_size]
    missing = batch_size - len(part)
    return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part
