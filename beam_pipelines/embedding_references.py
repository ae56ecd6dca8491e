"""References to embeddings: who a slice is and where its record lies.

They are shuffled in place of the embeddings, 20 to 45 bytes for 6,000, and in batches: one from
each task that reads embeddings to each shard of sequences. A batch is one bytes value: anything
else the embedded runner holds as Python objects while it groups.
"""

import itertools
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from beam_pipelines import schema, storage, tfrecord
from beam_pipelines.embeddings import HOW_TO_MAKE as HOW_TO_MAKE_EMBEDDINGS
from beam_pipelines.errors import UserError
from beam_pipelines.layout import DataLayout
from beam_pipelines.splits import shard_of

# Where series are scattered over all embedding shards, a batch holds a handful of references from
# each shard of its task.
_SHARDS_A_TASK = 16


class EmbeddingReference(NamedTuple):
    """A slice and where its embedding is."""

    item: schema.Slice
    shard: str
    offset: int


def pack(references: Sequence[EmbeddingReference]) -> bytes:
    """A batch of references as Beam is given it."""
    rows = [[*vars(r.item).values(), r.shard, r.offset] for r in references]
    return zlib.compress(json.dumps(rows).encode(), level=1)


def unpack(batch: bytes) -> Iterator[EmbeddingReference]:
    """The references of a packed batch."""
    for *fields, label, shard, offset in json.loads(zlib.decompress(batch)):
        values = [*fields, None if label is None else tuple(label)]
        yield EmbeddingReference(schema.Slice(*values), shard, offset)


class SequenceShard(NamedTuple):
    """Which shard of which split."""

    split: str
    shard: int
    num_shards: int


class EmbeddingShards(NamedTuple):
    """Some embedding shards of a split, whose references one task reads.

    Attributes:
        split: train, validation or test.
        names: of the shards to read.
        num_shards: how many the split has, of embeddings as of sequences.
    """

    split: str
    names: tuple[str, ...]
    num_shards: int


def reference_tasks(split: str, names: Sequence[str]) -> Iterator[EmbeddingShards]:
    """Divides the shards of a split into tasks for `read_references`."""
    for start in range(0, len(names), _SHARDS_A_TASK):
        part = tuple(names[start : start + _SHARDS_A_TASK])
        yield EmbeddingShards(split, part, len(names))


def read_references(
    task: EmbeddingShards, data_dir: str, model_id: str
) -> Iterator[tuple[SequenceShard, bytes]]:
    """Yields packed references to every embedding of some shards, by the shard they go to."""
    folder = DataLayout(data_dir).embeddings(model_id, task.split)
    found: defaultdict[int, list[EmbeddingReference]] = defaultdict(list)
    for name in task.names:
        path = storage.join(folder, name)
        with storage.open_read(path) as file:
            for offset, data in tfrecord.read_records(file, path):
                item = schema.decode_slice(data)[0]
                shard = shard_of(item.patient_id, task.num_shards)
                found[shard].append(EmbeddingReference(item, name, offset))
    for shard, references in found.items():
        key = SequenceShard(task.split, shard, task.num_shards)
        yield key, pack(references)


def group_series(batches: Iterable[bytes]) -> list[list[EmbeddingReference]]:
    """Whole series, each in anatomical order, in a stable order. Input order does not matter.

    Args:
        batches: packed references; all those of a series, if any.

    Raises:
        UserError: a series lacks an embedding, or has one twice.
    """

    def series(reference: EmbeddingReference) -> tuple[str, str, str]:
        item = reference.item
        return item.patient_id, item.study_instance_uid, item.series_instance_uid

    references = itertools.chain.from_iterable(map(unpack, batches))
    ordered = sorted(references, key=lambda r: (series(r), r.item.index, r.item.image_id))
    groups = [list(group) for _, group in itertools.groupby(ordered, key=series)]
    for group in groups:
        found = [reference.item.index for reference in group]
        expected = group[0].item.num_slices
        if found != list(range(expected)):
            raise UserError(
                f"build_sequences: series {group[0].item.series_instance_uid}: {len(found)} "
                f"embeddings, not one for each of its {expected} slices; run "
                f"{HOW_TO_MAKE_EMBEDDINGS} again"
            )
    return groups


def read_embeddings(
    folder: str, references: Sequence[EmbeddingReference]
) -> tuple[np.ndarray, np.ndarray]:
    """Reads embeddings by reference: file by file, each from its start to its end.

    A shard of 2,048 slices takes 13 MB. One file is open at a time, however many the slices of a
    shard are scattered over, and a bucket is read forwards.

    Args:
        folder: of the embedding shards.
        references: at least one.

    Returns:
        float32 (num_slices, embedding_dim) and logits, float32 (num_slices, 6), in the order of
        the references.

    Raises:
        ValueError: a record is not where it was.
    """
    rows = {}
    by_place = sorted(references, key=lambda r: (r.shard, r.offset))
    for shard, group in itertools.groupby(by_place, key=lambda r: r.shard):
        path = storage.join(folder, shard)
        with storage.open_read(path) as file:
            for reference in group:
                file.seek(reference.offset)
                data = tfrecord.read_record(file, path)
                if data is None:
                    raise ValueError(
                        f"{path}: no record at {reference.offset}; the shard has changed"
                    )
                rows[shard, reference.offset] = schema.decode_embedding(data)[1:]
    ordered = [rows[r.shard, r.offset] for r in references]
    return np.stack([row for row, _ in ordered]), np.stack([logits for _, logits in ordered])
