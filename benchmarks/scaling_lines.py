"""Lines on whether a slice costs the same in a small archive and in a large one, stage by stage.

The slope from 30,000 to 100,000 slices over the slope from 1,000 to 30,000: 1 where cost is
proportional to size. Between 1,000 and 10,000 the fastest stages take half a second, and two tenths
of noise would decide. Stages with a model or a training input run at tiny image sizes, where what
the pipeline itself does is most of the work.

The largest archive does not fit into memory beside all else, a small one does. So archives are
driven out of the page cache before each run: every size is read from the disk.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import stages
from benchmarks.arithmetic import ratio, slope
from benchmarks.bench import Bench, Job, copy_described, remover
from benchmarks.label_lines import label_file
from benchmarks.lines import Goal, Row, line, make_row, number
from benchmarks.prediction_lines import base_experiment, embeddings_job, predict_job, sequences
from benchmarks.sequence_lines import embeddings, sequences_job

_ARCHIVES = ("1k", "30k", "100k")
_IMAGE_SIZE = 32
# Width of small_cnn's embeddings.
_DIM = 128
_OUTPUTS = ("train", "validation", "test", "quarantine")
_GOAL = Goal("ratio", at_least=0.9, at_most=1.1)
# GB: 33 KB a slice at 256 px; 3 KB at 32 px.
_EXAMPLES_GB, _TINY_GB = 3.5, 0.4


def _rows(
    bench: Bench, stage: str, counts: Sequence[int], jobs: Sequence[Job], note: str = ""
) -> list[Row]:
    """Measures three sizes and compares the two slopes between them, in CPU and in wall time."""
    runs = bench.alternate(jobs)
    rows = []
    for quantity, words in (("cpu", "CPU"), ("wall", "wall")):
        seconds = [getattr(runs[job.label], quantity) for job in jobs]
        small, large = (slope(seconds[i : i + 2], counts[i : i + 2]) for i in range(2))
        value = ratio(large, small)
        rows.append(
            make_row(
                f"scale_{stage}.{quantity}",
                f"{stage}, {words} a slice from {counts[1]:,} to {counts[2]:,}, against "
                f"{counts[0]:,} to {counts[1]:,}",
                figure=number(large * 1e3, "ms"),
                reference=number(small * 1e3, "ms"),
                ratio=value,
                goal=_GOAL,
                judged=[value],
                usage=runs[jobs[2].label].usage,
                note=note,
            )
        )
    return rows


def _archive_rows(bench: Bench, stage: str, job: Callable[[str], Job], note: str = "") -> list[Row]:
    counts = [bench.num_slices(name) for name in _ARCHIVES]
    repeated = (
        f"{counts[2]:,} members repeat the pixels of {bench.num_distinct} distinct slices under "
        "other names and UIDs"
    )
    note = f"{note}; {repeated}" if note else repeated
    return _rows(bench, stage, counts, [job(name) for name in _ARCHIVES], note)


def _cold(archive: Path, before: Callable[[], None]) -> Callable[[], None]:
    """What is done before a run that shall read its archive from the disk."""

    def run() -> None:
        before()
        with archive.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    return run


def _sizes(bench: Bench) -> tuple[int, ...]:
    return bench.pick((1_000, 30_000, 100_000), (700, 1_400, 4_200))


@line("scale_extract_metadata", archives=_ARCHIVES, scratch_gb=0.2)
def scale_extract_metadata(bench: Bench) -> list[Row]:
    """Cost a slice of extract_metadata, 1,000 to 100,000 slices."""

    def job(name: str) -> Job:
        folder = bench.scratch / name
        command = stages.extract_metadata(bench.archive(name), folder)
        return Job(f"metadata-{name}", command, _cold(bench.archive(name), remover(folder)))

    return _archive_rows(bench, "extract_metadata", job)


@line("scale_process_labels", fixtures_gb=0.3, scratch_gb=0.3)
def scale_process_labels(bench: Bench) -> list[Row]:
    """Cost a slice of process_labels, 7,500 to 750,000 slices."""
    counts = bench.pick((7_500, 225_000, 750_000), (1_000, 5_000, 20_000))

    def job(count: int) -> Job:
        folder = bench.scratch / str(count)
        flags = ("--labels", label_file(bench, count))
        return Job(f"labels-{count}", stages.process_labels(folder, *flags), remover(folder))

    note = "7.5 times the sizes of the other stages: a slice takes microseconds"
    return _rows(bench, "process_labels", counts, [job(count) for count in counts], note)


@line("scale_build_examples", archives=_ARCHIVES, scratch_gb=_EXAMPLES_GB)
def scale_build_examples(bench: Bench) -> list[Row]:
    """Cost a slice of build_examples at 256 px, 1,000 to 100,000 slices."""

    def job(name: str) -> Job:
        folder = bench.scratch / name
        copy_described(bench.described(name), folder)
        command = stages.build_examples(bench.archive(name), folder)
        before = _cold(bench.archive(name), remover(*(folder / x for x in _OUTPUTS)))
        return Job(f"examples-{name}", command, before)

    return _archive_rows(bench, "build_examples", job, "256 px, all cores, read from the disk")


@line("scale_training_input", archives=_ARCHIVES, fixtures_gb=_TINY_GB)
def scale_training_input(bench: Bench) -> list[Row]:
    """Cost an image of the training input at 32 px, archives of 1,000 to 100,000 slices."""
    roots = [bench.examples(name, _IMAGE_SIZE) for name in _ARCHIVES]
    counts = [_num_labelled(root) for root in roots]
    jobs = [
        Job(
            f"input-{count}",
            stages.program(
                "benchmarks.training_input", "--data_dir", root,
                "--image_size", _IMAGE_SIZE, "--images", count,
            ),
        )
        for root, count in zip(roots, counts, strict=True)
    ]  # fmt: skip
    note = f"{_IMAGE_SIZE} px, one epoch of the train split; archives as in the rows above"
    return _rows(bench, "training_input", counts, jobs, note)


def _num_labelled(data_dir: Path) -> int:
    manifest = json.loads((data_dir / "train" / "manifest.json").read_text())
    return manifest["num_labelled"]


@line("scale_extract_embeddings", archives=_ARCHIVES, fixtures_gb=_TINY_GB, scratch_gb=0.2)
def scale_extract_embeddings(bench: Bench) -> list[Row]:
    """Cost a slice of extract_embeddings with small_cnn at 32 px, 1,000 to 100,000 slices."""
    model = base_experiment(bench, "small_cnn", _IMAGE_SIZE)

    def job(name: str) -> Job:
        root = bench.examples(name, _IMAGE_SIZE)
        return embeddings_job(f"embeddings-{name}", root, model)

    rows = _archive_rows(bench, "extract_embeddings", job, f"small_cnn, {_IMAGE_SIZE} px")
    for name in _ARCHIVES:
        job(name).before()
    return rows


@line("scale_build_sequences", fixtures_gb=0.1, scratch_gb=0.2)
def scale_build_sequences(bench: Bench) -> list[Row]:
    """Cost a slice of build_sequences, 1,000 to 100,000 slices of 128 numbers."""
    counts = _sizes(bench)
    roots = [embeddings(bench, count, count // 35, _DIM) for count in counts]
    jobs = [sequences_job(f"sequences-{n}", root) for n, root in zip(counts, roots, strict=True)]
    rows = _rows(bench, "build_sequences", counts, jobs, f"embeddings of {_DIM} numbers")
    for job in jobs:
        job.before()
    return rows


@line("scale_predict", fixtures_gb=0.2, scratch_gb=0.1)
def scale_predict(bench: Bench) -> list[Row]:
    """Cost a slice of predict from sequences, 1,000 to 100,000 slices of 128 numbers."""
    counts = _sizes(bench)
    jobs = [predict_job(f"predict-{n}", sequences(bench, n, _DIM)) for n in counts]
    rows = _rows(bench, "predict", counts, jobs, f"one LSTM of 16 cells, {_DIM} numbers a slice")
    for job in jobs:
        job.before()
    return rows
