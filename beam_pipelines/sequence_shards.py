"""Embeddings to sequences: grouped by series, put in order, cut into windows, padded.

References to embeddings are shuffled, never the embeddings: an element holds who a slice is and
where its record lies, about 300 bytes in place of 6,000.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import numpy as np

from beam_pipelines import schema, shards, storage, tfrecord
from beam_pipelines.embeddings import HOW_TO_MAKE as HOW_TO_MAKE_EMBEDDINGS
from beam_pipelines.errors import UserError
from beam_pipelines.layout import DataLayout, shard_name
from beam_pipelines.sequences import mask, pad, window_starts
from beam_pipelines.slice_features import labels_of, raw_features
from beam_pipelines.splits import shard_of
from beam_pipelines.transform_graph import SliceTransform, TransformFolder, concatenate

STAGE = "build_sequences"
HOW_TO_MAKE = "python -m beam_pipelines.build_sequences"
_CARRIED = ("num_slices", "num_labelled", "num_patients", "num_series", "label_counts")


class EmbeddingReference(NamedTuple):
    """A slice and where its embedding is."""

    item: schema.Slice
    shard: str
    offset: int


class SequenceShard(NamedTuple):
    """Which shard of which split."""

    split: str
    shard: int
    num_shards: int


def read_references(
    data_dir: str, model_id: str, split: str, name: str, num_shards: int
) -> Iterator[tuple[SequenceShard, EmbeddingReference]]:
    """Yields a reference to every embedding of a shard, keyed by the sequence shard it goes to."""
    path = storage.join(DataLayout(data_dir).embeddings(model_id, split), name)
    with storage.open_read(path) as file:
        for offset, data in tfrecord.read_records(file, path):
            item = schema.decode_slice(data)[0]
            shard = shard_of(item.patient_id, num_shards)
            yield (
                SequenceShard(split, shard, num_shards),
                EmbeddingReference(item, name, offset),
            )


def group_series(references: Iterable[EmbeddingReference]) -> list[list[EmbeddingReference]]:
    """Whole series, each in anatomical order, in a stable order. Input order does not matter.

    Raises:
        UserError: a series lacks an embedding, or has one twice.
    """

    def series(reference: EmbeddingReference) -> tuple[str, str, str]:
        item = reference.item
        return item.patient_id, item.study_instance_uid, item.series_instance_uid

    ordered = sorted(references, key=lambda r: (series(r), r.item.index, r.item.image_id))
    groups = [list(group) for _, group in itertools.groupby(ordered, key=series)]
    for group in groups:
        found = [reference.item.index for reference in group]
        expected = group[0].item.num_slices
        if found != list(range(expected)):
            raise UserError(
                f"{STAGE}: series {group[0].item.series_instance_uid}: {len(found)} embeddings, "
                f"not one for each of its {expected} slices; run {HOW_TO_MAKE_EMBEDDINGS} again"
            )
    return groups


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

    def build(self, task: tuple[SequenceShard, Iterable[EmbeddingReference]]) -> shards.Receipt:
        """Writes one shard; see `transforms.Builder`."""
        (split, shard, num_shards), references = task
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
            folder, name, expected, lambda file: self._write(file, split, references)
        )

    def _write(
        self, file: IO[bytes], split: str, references: Iterable[EmbeddingReference]
    ) -> shards.Receipt:
        series = group_series(references)
        num_slices = sum(map(len, series))
        num_sequences = 0
        for sequence in self._sequences(split, series):
            tfrecord.write_record(file, schema.encode_sequence(sequence))
            num_sequences += 1
        return {
            "split": split,
            "slices_in": num_slices,
            "num_slices": num_slices,
            "num_sequences": num_sequences,
            "quarantined": [],
        }

    def _sequences(
        self, split: str, series: list[list[EmbeddingReference]]
    ) -> Iterator[schema.Sequence]:
        folder = DataLayout(self.data_dir).embeddings(self.model_id, split)
        items = [[reference.item for reference in group] for group in series]
        # One call for the whole shard: a call costs 2 ms whatever its size.
        scaled = self._apply(concatenate(raw_features(group) for group in items))
        starts = np.cumsum([0, *map(len, items)])
        with _RecordFiles(folder) as files:
            for group, slices, start in zip(series, items, starts, strict=False):
                records = [schema.decode_embedding(files.read(r.shard, r.offset)) for r in group]
                yield from make_windows(
                    slices,
                    np.stack([embedding for _, embedding, _ in records]),
                    np.stack([logits for _, _, logits in records]),
                    scaled[start : start + len(group)],
                    self.max_to_keep,
                )


class _RecordFiles:
    """Records of a folder's shards by offset; each shard is opened once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}

    def __enter__(self) -> "_RecordFiles":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def read(self, shard: str, offset: int) -> bytes:
        path = storage.join(self._folder, shard)
        if shard not in self._files:
            self._files[shard] = storage.open_read(path)
        self._files[shard].seek(offset)
        data = tfrecord.read_record(self._files[shard], path)
        if data is None:
            raise ValueError(f"{path}: no record at {offset}; the shard has changed")
        return data


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
            settings = {
                **self.settings,
                "embedding_dim": embeddings["settings"]["embedding_dim"],
                "val_ratio": embeddings["settings"]["val_ratio"],
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
