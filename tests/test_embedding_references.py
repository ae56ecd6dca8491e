import random
from pathlib import Path

import numpy as np
import pytest
from embedding_data import MODEL_ID, embedding_of, make_items, write_embeddings

from beam_pipelines.embedding_references import (
    EmbeddingReference,
    SequenceShard,
    group_series,
    pack,
    read_embeddings,
    read_references,
    reference_tasks,
    unpack,
)
from beam_pipelines.errors import UserError
from beam_pipelines.layout import DataLayout
from beam_pipelines.schema import Slice
from beam_pipelines.shards import read_manifest
from beam_pipelines.splits import shard_of


def references(series: list[list[Slice]]) -> list[EmbeddingReference]:
    return [EmbeddingReference(item, "s", i) for group in series for i, item in enumerate(group)]


def test_series_are_grouped_and_put_in_order():
    series = [make_items("a", 5), make_items("b", 1), make_items("c", 3)]
    shuffled = references(series)
    random.Random(0).shuffle(shuffled)
    batches = [pack(shuffled[start::3]) for start in range(3)]
    assert [[r.item for r in group] for group in group_series(batches)] == series


@pytest.mark.parametrize("change", [lambda r: r[1:], lambda r: r[:-1], lambda r: [*r, r[2]]])
def test_gaps_and_twins_are_an_error(change):
    with pytest.raises(UserError, match=r"a-series: \d embeddings, not one for each of its 4"):
        group_series([pack(change(references([make_items("a", 4)])))])


def test_references_are_read_in_batches_and_lead_to_the_embeddings(tmp_path: Path):
    """40 embedding shards over which every series is scattered: three tasks, few batches."""
    series = [make_items(f"p{i}", 9) for i in range(20)]
    write_embeddings(tmp_path, "train", series, num_shards=40)
    folder = DataLayout(str(tmp_path)).embeddings(MODEL_ID, "train")
    names = [shard["name"] for shard in read_manifest(folder, "x")["shards"]]
    tasks = list(reference_tasks("train", names))
    assert [len(task.names) for task in tasks] == [16, 16, 8]
    batches = [b for task in tasks for b in read_references(task, str(tmp_path), MODEL_ID)]
    shards = {f"p{i}": SequenceShard("train", shard_of(f"p{i}", 40), 40) for i in range(20)}
    assert len(batches) <= 3 * len(set(shards.values()))
    found = [r for _, batch in batches for r in unpack(batch)]
    assert sorted(r.item.image_id for r in found) == sorted(i.image_id for s in series for i in s)
    for key, batch in batches:
        assert {shards[r.item.patient_id] for r in unpack(batch)} == {key}
    random.Random(0).shuffle(found)
    embeddings, logits = read_embeddings(folder, found)
    for reference, embedding, row in zip(found, embeddings, logits, strict=True):
        expected = embedding_of(reference.item.image_id)
        np.testing.assert_array_equal(embedding, expected[0])
        np.testing.assert_array_equal(row, expected[1])
