from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.layout import DataLayout
from beam_pipelines.quarantine import BadSlice, read_quarantine, write_quarantine

# What may be in a cell: commas and quotes too.
cells = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8)


@given(st.lists(st.builds(BadSlice, cells, cells, cells, cells, cells), max_size=5))
@settings(max_examples=30)
def test_round_trip_in_the_order_of_the_names(
    tmp_path_factory: pytest.TempPathFactory, slices: list[BadSlice]
):
    layout = DataLayout(str(tmp_path_factory.getbasetemp()))
    path = write_quarantine(layout, "stage", slices)
    assert path == layout.quarantine_csv("stage")
    assert read_quarantine(layout, "stage") == sorted(slices)


def test_a_row_is_one_line_whatever_the_name(tmp_path: Path):
    layout = DataLayout(str(tmp_path))
    write_quarantine(layout, "stage", [BadSlice("a\r\nb\0\udc80", "", "test", "stage", "bad")])
    assert [bad.member_name for bad in read_quarantine(layout, "stage")] == [
        "a\ufffd\ufffdb" + "\ufffd" * 2
    ]


def test_an_empty_quarantine_is_a_file_too(tmp_path: Path):
    layout = DataLayout(str(tmp_path))
    text = Path(write_quarantine(layout, "stage", [])).read_text()
    assert text == "member_name,image_id,subset,stage,reason\n"
    assert read_quarantine(layout, "stage") == []


def test_a_stage_that_has_not_run_has_no_quarantine(tmp_path: Path):
    assert read_quarantine(DataLayout(str(tmp_path)), "stage") == []
