"""Trained models as plain functions of NumPy arrays, for pipelines and evaluation.

Each is traced once, for batches of any size, when it is loaded. A call cuts what it is given into
batches of one size and a smaller last one; the traced function holds no state, so threads may call
it at the same time. TensorFlow is imported when a model is loaded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipelines import schema
from beam_pipelines.tensorflow_setup import load_tensorflow
from trainer import model_files
from trainer.experiment import Experiment

# Weights up to this size become constants; see `_inference`.
_MAX_CONSTANT_BYTES = 16 << 20


class BaseScorer:
    """A base model: `embeddings, logits = scorer(images)`."""

    def __init__(self, model: Any, batch_size: int, tta: str = "none") -> None:
        import tensorflow as tf

        from trainer.base_model import at_test_time, embedding_model

        self.batch_size = batch_size
        self.image_size: int = model.input_shape[1]
        self.num_channels: int = model.input_shape[-1]
        inner = at_test_time(embedding_model(model), tta)
        self.embedding_dim: int = inner.output_shape[0][1]
        shape = (None, *model.input_shape[1:])
        traced = tf.function(_inference(inner))
        self._run = traced.get_concrete_function(tf.TensorSpec(shape, tf.uint8))
        self._decode = tf.function(self._images).get_concrete_function(
            tf.TensorSpec((None,), tf.string)
        )
        # The traced function refers to the model's variables weakly.
        self._model = inner

    def _images(self, records: Any) -> Any:
        import tensorflow as tf

        with tf.device("CPU"):
            return schema.parse_examples(records, self.image_size, self.num_channels)["images"]

    def __call__(self, images: Any) -> tuple[np.ndarray, np.ndarray]:
        """Scores any number of images.

        Args:
            images: uint8 of shape (num_slices, image_size, image_size, num_channels), an array or a
                tensor.

        Returns:
            Embeddings, float32 (num_slices, embedding_dim), and logits, float32 (num_slices, 6).
        """
        embeddings, logits = _in_batches(self._call, images, len(images), self.batch_size)
        return embeddings, logits

    def score_examples(self, records: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Scores serialized examples; their images are decoded as in training."""
        import tensorflow as tf

        return self(self._decode(tf.constant(records)))

    def _call(self, images: Any) -> list[np.ndarray]:
        import tensorflow as tf

        return [output.numpy() for output in self._run(tf.convert_to_tensor(images))]


class SequenceScorer:
    """A sequence model: `logits = scorer(arrays)`."""

    def __init__(self, model: Any, max_to_keep: int, batch_size: int) -> None:
        import tensorflow as tf

        self.batch_size = batch_size
        self.max_to_keep = max_to_keep
        spec = {name: _specification(t, max_to_keep) for name, t in model.input.items()}
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
                where a slice is real; for a model of a group also `fold` (num_sequences,), whose
                member the embeddings are of. Other entries are passed over.

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


def _specification(tensor: Any, max_to_keep: int) -> Any:
    """What a sequence model's input is traced with: (batch,) or (batch, max_to_keep, ...)."""
    import tensorflow as tf

    lengths = (max_to_keep,) if len(tensor.shape) > 1 else ()
    return tf.TensorSpec((None, *lengths, *tensor.shape[2:]), tensor.dtype)


def load_base(experiment: Experiment, batch_size: int = 64) -> BaseScorer:
    """Loads a base experiment's model.

    Raises:
        UserError: it is not trained to the end.
    """
    return BaseScorer(_load(experiment), batch_size, experiment.config().base.tta)


def load_sequence(experiment: Experiment, batch_size: int = 32) -> SequenceScorer:
    """Loads a sequence experiment's model.

    Raises:
        UserError: it is not trained to the end.
    """
    max_to_keep = experiment.config().sequence.max_to_keep
    return SequenceScorer(_load(experiment), max_to_keep, batch_size)


def _load(experiment: Experiment) -> Any:
    experiment.check_finished()
    load_tensorflow()
    return model_files.load_model(experiment.model_file)


def _inference(model: Any) -> Callable[[Any], Any]:
    """A model's inference; the weights of a small one are constants of the graph.

    TensorFlow then folds batch normalization into the convolutions: small_cnn scored 1,050 images
    of 96 px a second and core in place of 860. ResNet50V2 gained a seventh, but 94 MB of weights
    took 1.4 GB more.
    """
    if 4 * model.count_params() > _MAX_CONSTANT_BYTES:
        return lambda images: model(images, training=False)
    import tensorflow as tf

    trainable = [weight.numpy() for weight in model.trainable_variables]
    others = [weight.numpy() for weight in model.non_trainable_variables]

    def run(images: Any) -> Any:
        # Made inside the trace: a tensor from outside would be an input of the graph.
        constants = [[tf.constant(array) for array in arrays] for arrays in (trainable, others)]
        return model.stateless_call(*constants, images, training=False)[0]

    return run


def _in_batches(
    call: Callable[[Any], list[np.ndarray]], arrays: Any, count: int, batch_size: int
) -> list[np.ndarray]:
    """Calls with at most `batch_size` rows; at least once, so that shapes are known."""
    outputs = [
        call(_batch(arrays, start, batch_size)) for start in range(0, max(count, 1), batch_size)
    ]
    return [np.concatenate(parts)[:count] for parts in zip(*outputs, strict=True)]


def _batch(arrays: Any, start: int, batch_size: int) -> Any:
    if isinstance(arrays, dict):
        return {name: _batch(array, start, batch_size) for name, array in arrays.items()}
    part = arrays[start : start + batch_size]
    # Not every layer takes an empty batch.
    return part if len(part) else np.zeros((1, *part.shape[1:]), part.dtype)
