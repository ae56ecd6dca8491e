from pathlib import Path

import numpy as np
import pytest

from beam_pipelines import shards
from beam_pipelines.errors import UserError
from beam_pipelines.predictions import (
    ShardToScore,
    clip,
    mean_over_members,
    shards_to_score,
)
from beam_pipelines.schema import SUBTYPES
from beam_pipelines.submission import PublishPredictions

ROW = "0.100000000,0.200000000,0.300000000,0.400000000,0.500000000,0.600000000"


def test_probabilities_are_inside_the_open_interval():
    np.testing.assert_array_equal(
        clip(np.array([0.0, 1e-9, 0.2, 1.0])), [1e-6, 1e-6, 0.2, 1 - 1e-6]
    )


def test_members_count_alike():
    one = {"a": np.full(6, 0.1), "b": np.full(6, 0.2)}
    two = {"b": np.full(6, 0.6), "a": np.full(6, 0.5)}
    found = mean_over_members([one, two], "s")
    assert list(found) == ["a", "b"]
    np.testing.assert_allclose(found["a"], 0.3)
    np.testing.assert_allclose(found["b"], 0.4)
    with pytest.raises(UserError, match="predict s: the members of the group have not seen the sa"):
        mean_over_members([one, {"a": np.zeros(6)}], "s")


def write_folder(folder: Path, counts: list[int]) -> str:
    receipts = []
    for index, count in enumerate(counts):
        name = f"{index}.tfrecord"
        with shards.write_shard(str(folder), name, f"{folder.name}-{index}") as (_, receipt):
            receipt["num_slices"] = count
        receipts.append(receipt)
    shards.publish_manifest(str(folder), "stage", {}, receipts)
    return str(folder)


def test_members_shards_are_read_side_by_side(tmp_path: Path):
    one, two = (write_folder(tmp_path / name, [3, 2]) for name in ("one", "two"))
    assert shards_to_score([one, two], "make") == [
        ShardToScore("0.tfrecord", 3, ("one-0", "two-0")),
        ShardToScore("1.tfrecord", 2, ("one-1", "two-1")),
    ]
    for counts in ([3, 1], [3, 2, 1], []):
        other = write_folder(tmp_path / f"other{len(counts)}", counts)
        with pytest.raises(UserError, match=r"not the slices of .*/one; run .* then make again"):
            shards_to_score([one, other], "make")
    with pytest.raises(UserError, match=r"missing: no manifest\.json, .*; run make"):
        shards_to_score([one, str(tmp_path / "missing")], "make")


def publish(
    tmp_path: Path,
    parts: list[list[str]],
    quarantined: tuple[str, ...] = (),
    priors: tuple[float, ...] = (),
) -> list[str]:
    """Merges parts of rows of the same probabilities and reads the submission."""
    folder = tmp_path / "parts"
    receipts = []
    for index, ids in enumerate(parts):
        with shards.write_shard(str(folder), f"{index}.csv", "f") as (file, receipt):
            file.write("".join(f"{image_id},{ROW}\n" for image_id in ids).encode())
        receipts.append(receipt)
    output = tmp_path / "out.csv"
    merge = PublishPredictions(
        str(folder), str(output), lambda: (["a", "b", "c"], list(quarantined)), priors
    )
    merge(receipts)
    return output.read_text().splitlines()


def test_six_rows_a_slice_in_the_order_of_the_metadata(tmp_path: Path):
    lines = publish(tmp_path, [["c"], ["b", "a"]])
    cells = [f"0.{i}00000000" for i in range(1, 7)]
    assert lines == ["ID,Label"] + [
        f"{image_id}_{subtype},{cell}"
        for image_id in "abc"
        for subtype, cell in zip(SUBTYPES, cells, strict=True)
    ]


def test_quarantined_slices_get_the_priors(tmp_path: Path):
    priors = (0.25, 0.5, 0.125, 0.75, 0.0, 1.0)
    lines = publish(tmp_path, [["a", "b", "c"]], quarantined=("q",), priors=priors)
    cells = [
        "0.250000000",
        "0.500000000",
        "0.125000000",
        "0.750000000",
        "0.000001000",
        "0.999999000",
    ]
    assert lines[-6:] == [f"q_{s},{cell}" for s, cell in zip(SUBTYPES, cells, strict=True)]
    assert len(lines) == 1 + 4 * 6


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [["a"], ["b"]],
            "{0}/out.csv: not written: 1 of 3 slices of the metadata have no prediction (c), 0 "
            "predictions are of no slice; run the stages from build_examples on again",
        ),
        (
            [["a", "b", "c", "d", "e"]],
            "{0}/out.csv: not written: 0 of 3 slices of the metadata have no prediction (), 2 "
            "predictions are of no slice; run the stages from build_examples on again",
        ),
        (
            [["a", "d"]],
            "{0}/out.csv: not written: 2 of 3 slices of the metadata have no prediction (b, c), "
            "1 predictions are of no slice; run the stages from build_examples on again",
        ),
        (
            [["a", "b"], ["b", "c"]],
            "{0}/parts: b has two predictions; run the stages from build_examples on again",
        ),
    ],
    ids=["missing", "extra", "missing and extra", "twice"],
)
def test_an_incomplete_submission_is_not_written(
    tmp_path: Path, parts: list[list[str]], message: str
):
    (tmp_path / "out.csv").write_text("of an earlier run")
    with pytest.raises(UserError) as error:
        publish(tmp_path, parts)
    assert str(error.value) == message.format(tmp_path)
    assert (tmp_path / "out.csv").read_text() == "of an earlier run"
