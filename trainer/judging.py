"""Judges a model on all of the validation split.

Predictions are collected for every record and the metric is taken of them in NumPy. A Keras
metric would average batches, of which the last is padded, and could not average the windows that
see a slice twice.
"""

import dataclasses
from typing import Any

import numpy as np

from beam_pipelines import schema
from configs import BaseConfig, ExamplesConfig
from trainer import input_pipeline, metrics
from trainer.base_model import at_test_time
from trainer.shard_files import ShardFolder

WEIGHTED_LOG_LOSS = "val_weighted_log_loss"


class SliceJudge:
    """Weighted log loss of a base model, as it scores, over the labelled slices of a split."""

    def __init__(self, folder: ShardFolder, examples: ExamplesConfig, base: BaseConfig) -> None:
        labels = [schema.decode_slice(record)[0].label for record in folder.records()]
        self._rows = np.array([i for i, label in enumerate(labels) if label is not None])
        self._labels = np.array([label for label in labels if label is not None])
        self._dataset = input_pipeline.evaluation_images(folder, examples, base.batch_size)
        self._tta = base.tta
        self._judged: Any = None
        self._as_it_scores: Any = None

    def _scoring(self, model: Any) -> Any:
        """The model as it scores; made once, because its first call is traced for seconds."""
        if model is not self._judged:
            with model.distribute_strategy.scope():
                self._judged, self._as_it_scores = model, at_test_time(model, self._tta)
        return self._as_it_scores

    def predict(self, model: Any) -> tuple[np.ndarray, np.ndarray]:
        """Labels and probabilities, each of shape (num_slices, 6), of the labelled slices."""
        logits = self._scoring(model).predict(self._dataset, verbose=0)[self._rows]
        return self._labels, metrics.sigmoid(logits)

    def __call__(self, model: Any) -> dict[str, float]:
        """The validation losses by name."""
        return {WEIGHTED_LOG_LOSS: metrics.weighted_log_loss(*self.predict(model))}


class SequenceJudge:
    """Weighted log loss of a sequence model over the labelled slices; windows are averaged."""

    def __init__(self, folder: ShardFolder, batch_size: int) -> None:
        self._slices = SequenceSlices(folder)
        self._dataset = input_pipeline.evaluation_sequences(folder, batch_size)

    def predict(self, model: Any) -> tuple[np.ndarray, np.ndarray]:
        """Labels and probabilities, each of shape (num_slices, 6), of each labelled slice once."""
        logits = model.predict(self._dataset, verbose=0)
        return self._slices.by_image(metrics.sigmoid(logits))

    def __call__(self, model: Any) -> dict[str, float]:
        """The validation losses by name."""
        return {WEIGHTED_LOG_LOSS: metrics.weighted_log_loss(*self.predict(model))}


class SequenceSlices:
    """Where the labelled slices of a folder of sequences are.

    Each slice is there once, in the order in which slices come first in the files.

    Attributes:
        base_logits: the base model's, float32 of shape (num_sequences, max_to_keep, 6).
        labels: 0 or 1, float32 of shape (num_slices, 6).
        image_ids: of each slice, texts of shape (num_slices,).
        patient_ids: of the same shape.
        study_instance_uids: of the same shape.
    """

    def __init__(self, folder: ShardFolder) -> None:
        sequences = [_without_embeddings(record) for record in folder.records()]
        self.base_logits = np.stack([sequence.logits for sequence in sequences])
        labels = np.stack([_labels_of(sequence) for sequence in sequences])
        mask = np.stack([sequence.mask for sequence in sequences]).astype(bool)
        self._known = mask & (labels[..., 0] >= 0)
        # Which sequence a labelled place is in, and its row among the slices.
        of_place = np.nonzero(self._known)[0]
        ids = np.array([sequence.image_ids for sequence in sequences])[self._known]
        _, first, found = np.unique(ids, return_index=True, return_inverse=True)
        order = np.argsort(first)
        self._rows = np.argsort(order)[found]
        first = first[order]
        self.labels = labels[self._known][first]
        self.image_ids = ids[first]
        self.patient_ids = np.array([s.patient_id for s in sequences])[of_place][first]
        self.study_instance_uids = np.array([s.study_instance_uid for s in sequences])[of_place][
            first
        ]

    def by_image(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels and mean probabilities, each of shape (num_slices, 6), of each slice once.

        Args:
            probabilities: of shape (num_sequences or more, max_to_keep, 6), in file order.
        """
        known = probabilities[: len(self._known)][self._known]
        sums = np.stack([np.bincount(self._rows, column) for column in known.T], axis=1)
        return self.labels, sums / np.bincount(self._rows)[:, np.newaxis]


def _without_embeddings(record: bytes) -> schema.Sequence:
    """A sequence of which nothing holds on to the embeddings' memory."""
    sequence = schema.decode_sequence(record)
    nothing = np.empty(0, np.float32)
    return dataclasses.replace(
        sequence,
        embeddings=nothing,
        slice_features=nothing,
        logits=np.array(sequence.logits),
        labels=None if sequence.labels is None else np.array(sequence.labels),
        mask=np.array(sequence.mask),
    )


def _labels_of(sequence: schema.Sequence) -> np.ndarray:
    """Labels, float32 (max_to_keep, 6), NO_LABEL where the whole series has none."""
    if sequence.labels is not None:
        return sequence.labels
    return np.full((len(sequence.mask), schema.NUM_LABELS), input_pipeline.NO_LABEL, np.float32)
