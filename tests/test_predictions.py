import dataclasses
from pathlib import Path

import numpy as np
import pytest

from beam_pipelines import shards
from beam_pipelines.errors import UserError
from beam_pipelines.predictions import PublishPredictions, to_probabilities
from beam_pipelines.schema import SUBTYPES

ROW = "0.100000000,0.200000000,0.300000000,0.400000000,0.500000000,0.600000000"


def test_probabilities_are_inside_the_open_interval():
    found = to_probabilities(np.array([-1000.0, -2.0, 0.0, 2.0, 1000.0], np.float32))
    np.testing.assert_allclose(found, [1e-6, 1 / (1 + np.e**2), 0.5, 1 / (1 + np.e**-2), 1 - 1e-6])
    assert (found > 0).all()
    assert (found < 1).all()


def publish(tmp_path: Path, parts: list[list[str]], **changes) -> list[str]:
    """Merges parts of rows of the same probabilities and reads the submission."""
    folder = tmp_path / "parts"
    receipts = []
    for index, ids in enumerate(parts):
        with shards.write_shard(str(folder), f"{index}.csv", "f") as (file, receipt):
            file.write("".join(f"{image_id},{ROW}\n" for image_id in ids).encode())
        receipts.append(receipt)
    output = tmp_path / "out.csv"
    merge = PublishPredictions(str(folder), str(output), ("a", "b", "c"), (), ())
    dataclasses.replace(merge, **changes)(receipts)
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
