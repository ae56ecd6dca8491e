"""Judges a model on all of the validation split.

Predictions are collected for every record and the metric is taken of them in NumPy. A Keras
metric would average batches, of which the last is padded, and could not average the windows that
see a slice twice.
"""

from typing import Any

import numpy as np

from beam_pipelines import schema
from trainer import input_pipeline, metrics
from trainer.shard_files import ShardFolder

WEIGHTED_LOG_LOSS = "val_weighted_log_loss"


class SliceJudge:
    """Weighted log loss of a base model over the labelled slices of a split."""

    def __init__(self, folder: ShardFolder, image_size: int, batch_size: int) -> None:
        labels = [schema.decode_slice(record)[0].label for record in folder.records()]
        self._rows = np.array([i for i, label in enumerate(labels) if label is not None])
        self._labels = np.array([label for label in labels if label is not None])
        self._dataset = input_pipeline.evaluation_images(folder, image_size, batch_size)

    def __call__(self, model: Any) -> dict[str, float]:
        """The validation losses by name."""
        logits = model.predict(self._dataset, verbose=0)[self._rows]
        loss = metrics.weighted_log_loss(self._labels, metrics.sigmoid(logits))
        return {WEIGHTED_LOG_LOSS: loss}


class SequenceJudge:
    """Weighted log loss of a sequence model over the labelled slices; windows are averaged."""

    def __init__(self, folder: ShardFolder, batch_size: int) -> None:
        self._slices = SequenceSlices(folder)
        self._dataset = input_pipeline.evaluation_sequences(folder, batch_size)

    def __call__(self, model: Any) -> dict[str, float]:
        """The validation losses by name."""
        logits = model.predict(self._dataset, verbose=0)
        labels, probabilities = self._slices.by_image(metrics.sigmoid(logits))
        return {WEIGHTED_LOG_LOSS: metrics.weighted_log_loss(labels, probabilities)}


class SequenceSlices:
    """Where the labelled slices of a folder of sequences are.

    Attributes:
        base_logits: the base model's, float32 of shape (num_sequences, max_to_keep, 6).
    """

    def __init__(self, folder: ShardFolder) -> None:
        sequences = [_without_embeddings(record) for record in folder.records()]
        self.base_logits = np.stack([logits for _, _, _, logits in sequences])
        self._known = np.stack([mask & (labels[:, 0] >= 0) for _, mask, labels, _ in sequences])
        self._labels = np.stack([labels for _, _, labels, _ in sequences])[self._known]
        self._image_ids = np.array([ids for ids, _, _, _ in sequences])[self._known].tolist()

    def by_image(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels and mean probabilities, each of shape (num_slices, 6), of each slice once.

        Args:
            probabilities: of shape (num_sequences or more, max_to_keep, 6), in file order.
        """
        known = probabilities[: len(self._known)][self._known]
        labels = metrics.mean_by_image(self._image_ids, self._labels)
        means = metrics.mean_by_image(self._image_ids, known)
        return np.stack(list(labels.values())), np.stack(list(means.values()))


def _without_embeddings(
    record: bytes,
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
    """Image ids, mask, labels (-1 where unknown) and logits; lets go of the embeddings' memory."""
    sequence = schema.decode_sequence(record)
    labels = sequence.labels
    if labels is None:
        labels = np.full((len(sequence.mask), schema.NUM_LABELS), input_pipeline.NO_LABEL)
    mask = sequence.mask.astype(bool)
    return sequence.image_ids, mask, np.array(labels, np.float32), np.array(sequence.logits)
