import struct
import threading
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from beam_pipelines import runs
from beam_pipelines.errors import UserError
from beam_pipelines.progress import Advance, no_progress
from beam_pipelines.shards import Receipt
from beam_pipelines.transforms import BuildOptions, BuildShards, PublishShards, count_slices

MODES = pytest.mark.parametrize(
    "mode", ["--build_threads=1", "--build_threads=3", "--direct_running_mode=multi_threading"]
)


class Builder:
    """Makes receipts of numbers of slices; below 0, the input is wrong."""

    def __init__(self, ready: bool = False) -> None:
        self.ready = ready

    def setup(self) -> None:
        self.ready = True

    def build(self, task: int, advance: Advance = no_progress) -> Receipt:
        assert self.ready
        if task < 0:
            raise UserError(f"slices: received {task}; give a number [of slices] from 0")
        if task > 100:
            raise ZeroDivisionError("a defect")
        bad = [("bad", "", "train", "stage", "reason")] * (task // 5)
        return {
            "slices_in": task,
            "num_slices": task - len(bad),
            "quarantined": bad,
            "reused": task == 3,
        }


class Publish:
    """Writes the number of receipts to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, receipts: list[Receipt]) -> None:
        self.path.write_text(str(len(receipts)))


def build(tasks: list[int], path: Path, mode: str = "--build_threads=1") -> Any:
    beam_options = runs.pipeline_options([mode])
    with runs.run_pipeline(beam_options) as pipeline:
        receipts = pipeline | beam.Create(tasks) | BuildShards(Builder())
        receipts | PublishShards(Publish(path))
    return pipeline.result


@MODES
def test_slices_are_counted_and_published_once(tmp_path: Path, mode: str):
    result = build([3, 4, 10], tmp_path / "out", mode)
    assert count_slices(result, "stage") == {
        "slices_in": 17,
        "slices_written": 15,
        "slices_quarantined": 2,
        "shards_reused": 1,
    }
    assert (tmp_path / "out").read_text() == "3"


def test_no_shards_are_published_too(tmp_path: Path):
    assert count_slices(build([], tmp_path / "out"), "stage")["slices_in"] == 0
    assert (tmp_path / "out").read_text() == "0"


@MODES
def test_a_workers_user_error_publishes_nothing(
    tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(UserError) as error:
        build([3, -1, 4], tmp_path / "out", mode)
    assert str(error.value) == "slices: received -1; give a number [of slices] from 0"
    assert not (tmp_path / "out").exists()
    assert capfd.readouterr().err == ""


def test_a_workers_defect_publishes_nothing(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        build([3, 101], tmp_path / "out")
    assert not (tmp_path / "out").exists()


MEETING = threading.Barrier(2)


class MeetingBuilder(Builder):
    """Waits until another shard is being built at the same time."""

    def build(self, task: int, advance: Advance = no_progress) -> Receipt:
        MEETING.wait(timeout=20)
        return super().build(task, advance)


def test_shards_are_built_side_by_side(tmp_path: Path):
    with runs.run_pipeline(runs.pipeline_options(["--build_threads=2"])) as pipeline:
        receipts = pipeline | beam.Create([1, 2, 4, 6]) | BuildShards(MeetingBuilder())
        receipts | PublishShards(Publish(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "4"


def test_progress_counts_what_was_there_already(tmp_path: Path):
    file = tmp_path / "done"
    with runs.run_pipeline(runs.pipeline_options([])) as pipeline:
        # What `watch` would set in a terminal.
        pipeline.options.view_as(BuildOptions).progress_file = str(file)
        pipeline | beam.Create([3, 4]) | BuildShards(Builder())
    assert struct.unpack("<2Q", file.read_bytes()) == (3, 0)
