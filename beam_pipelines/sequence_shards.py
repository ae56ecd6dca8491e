"""Embeddings to sequences: series in anatomical order, cut into windows, padded, written."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from beam_pipelines import schema, shards, tfrecord
from beam_pipelines.embedding_references import (
    EmbeddingReference,
    SequenceShard,
    group_series,
    read_embeddings,
)
from beam_pipelines.embeddings import HOW_TO_MAKE as HOW_TO_MAKE_EMBEDDINGS
from beam_pipelines.embeddings import fold_of
from beam_pipelines.layout import DataLayout, shard_name
from beam_pipelines.progress import Advance, no_progress
from beam_pipelines.sequences import mask, pad, window_starts
from beam_pipelines.slice_features import labels_of, raw_features
from beam_pipelines.transform_graph import SliceTransform, TransformFolder, concatenate

STAGE = "build_sequences"
HOW_TO_MAKE = "python -m beam_pipelines.build_sequences"
_CARRIED = ("num_slices", "num_labelled", "num_patients", "num_series", "label_counts")


def make_windows(
    items: Sequence[schema.Slice],
    embeddings: np.ndarray,
    logits: np.ndarray,
    slice_features: np.ndarray,
    max_to_keep: int,
) -> Iterator[schema.Sequence]:
    """Cuts a series into windows and pads them.

    Args:
        items: all slices of a series, in order.
        embeddings: float32 (num_slices, embedding_dim).
        logits: float32 (num_slices, 6).
        slice_features: float32 (num_slices, num_slice_features).
        max_to_keep: slices in a window.
    """
    values, labelled = labels_of(items)
    labels = np.where(labelled[:, np.newaxis] == 1, values, -1).astype(np.float32)
    for start in window_starts(len(items), max_to_keep):
        part = slice(start, min(start + max_to_keep, len(items)))
        ids = [item.image_id for item in items[part]]
        yield schema.Sequence(
            patient_id=items[0].patient_id,
            study_instance_uid=items[0].study_instance_uid,
            series_instance_uid=items[0].series_instance_uid,
            start=start,
            num_slices=len(items),
            image_ids=tuple(ids + [""] * (max_to_keep - len(ids))),
            embeddings=pad(embeddings[part], max_to_keep),
            logits=pad(logits[part], max_to_keep),
            slice_features=pad(slice_features[part], max_to_keep),
            labels=pad(labels[part], max_to_keep) if labelled.any() else None,
            mask=mask(len(ids), max_to_keep),
        )


@dataclass
class SequenceBuilder:
    """Writes the sequences of one shard.

    Attributes:
        data_dir: data root.
        model_id: of the base experiment.
        embeddings_fingerprint: of each split's embeddings.
        transform: the base experiment's transform.
        transform_fingerprint: of what it was fitted to.
        max_to_keep: slices in a sequence.
    """

    data_dir: str
    model_id: str
    embeddings_fingerprint: dict[str, str]
    transform: TransformFolder
    transform_fingerprint: str
    max_to_keep: int
    _apply: Any = field(default=None, repr=False)

    def setup(self) -> None:
        """Loads the transform."""
        self._apply = SliceTransform(self.transform)

    def build(
        self,
        task: tuple[SequenceShard, Iterable[bytes]],
        advance: Advance = no_progress,
    ) -> shards.Receipt:
        """Writes one shard; see `transforms.Builder`."""
        (split, shard, num_shards), batches = task
        folder = DataLayout(self.data_dir).sequences(self.model_id, split)
        name = shard_name(shard, num_shards)
        expected = shards.fingerprint(
            STAGE,
            schema.FORMAT_VERSION,
            self.embeddings_fingerprint[split],
            self.transform_fingerprint,
            self.max_to_keep,
        )
        return shards.build_shard(
            folder, name, expected, lambda file: self._write(file, split, batches, advance)
        )

    def _write(
        self, file: IO[bytes], split: str, batches: Iterable[bytes], advance: Advance
    ) -> shards.Receipt:
        series = group_series(batches)
        num_slices = sum(map(len, series))
        num_sequences = 0
        for windows in self._windows(split, series):
            for window in windows:
                tfrecord.write_record(file, schema.encode_sequence(window))
            num_sequences += len(windows)
            advance(windows[-1].num_slices, 0)
        return {
            "split": split,
            "slices_in": num_slices,
            "num_slices": num_slices,
            "num_sequences": num_sequences,
            "quarantined": [],
        }

    def _windows(
        self, split: str, series: list[list[EmbeddingReference]]
    ) -> Iterator[list[schema.Sequence]]:
        """The windows of each series."""
        items = [[reference.item for reference in group] for group in series]
        # One call for the whole shard: a call costs 2 ms whatever its size.
        scaled = self._apply(concatenate(raw_features(group) for group in items))
        folder = DataLayout(self.data_dir).embeddings(self.model_id, split)
        embeddings, logits = read_embeddings(folder, list(itertools.chain.from_iterable(series)))
        end = 0
        for slices in items:
            start, end = end, end + len(slices)
            part = slice(start, end)
            yield list(
                make_windows(slices, embeddings[part], logits[part], scaled[part], self.max_to_keep)
            )


@dataclass(frozen=True)
class PublishSequences:
    """Writes each split's manifest once all its shards are there.

    Attributes:
        data_dir: data root.
        model_id: of the base experiment.
        settings: what a reader must know, without the split's own entries.
        splits: which splits were made.
    """

    data_dir: str
    model_id: str
    settings: dict[str, Any]
    splits: tuple[str, ...]

    def __call__(self, receipts: list[shards.Receipt]) -> None:
        """Publishes."""
        layout = DataLayout(self.data_dir)
        for split in self.splits:
            source = layout.embeddings(self.model_id, split)
            embeddings = shards.read_manifest(source, HOW_TO_MAKE_EMBEDDINGS)
            mine = [receipt for receipt in receipts if receipt["split"] == split]
            written = sum(receipt["num_slices"] for receipt in mine)
            shards.check_complete(STAGE, embeddings["num_slices"], written)
            folds, fold = fold_of(embeddings["settings"])
            settings = {
                **self.settings,
                "embedding_dim": embeddings["settings"]["embedding_dim"],
                "val_ratio": embeddings["settings"]["val_ratio"],
                "examples_fingerprint": embeddings["settings"]["examples_fingerprint"],
                "folds": folds,
                "fold": fold,
                "embeddings_fingerprint": embeddings["fingerprint"],
            }
            shards.publish_manifest(
                layout.sequences(self.model_id, split),
                STAGE,
                settings,
                [shards.for_manifest(receipt) for receipt in mine],
                num_sequences=sum(receipt["num_sequences"] for receipt in mine),
                **{key: embeddings[key] for key in _CARRIED},
            )
