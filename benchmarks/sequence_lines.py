"""The line on build_sequences."""

from pathlib import Path

from benchmarks import stages
from benchmarks.bench import Bench, Job, record_fingerprint, remover
from benchmarks.lines import Goal, Row, line, make_row, number

_BASE_ID = "base1"
# The real archive's slices, and series.
_NUM_SLICES, _NUM_SERIES, _DIM = 874_000, 25_000, 1_536


def embeddings(bench: Bench, num_slices: int, num_series: int, dim: int) -> Path:
    """A data root with synthetic embeddings; made when it is first asked for."""

    def make(folder: Path) -> None:
        command = stages.program(
            "benchmarks.embedding_shards", "--data_dir", folder,
            "--slices", num_slices, "--series", num_series, "--dim", dim,
        )  # fmt: skip
        bench.prepare(f"embeddings of {num_slices:,} slices, {dim} numbers each", command)

    parameters = {
        "slices": num_slices, "series": num_series, "dim": dim, "code": record_fingerprint()
    }  # fmt: skip
    return bench.fixture(f"embeddings-{num_slices}-{dim}", parameters, make)


def sequences_job(label: str, data_dir: Path) -> Job:
    """build_sequences from nothing: the transform is fitted, too."""
    experiments = (data_dir / "experiments").glob(f"{_BASE_ID}_*")
    transforms = [experiment / "transform" for experiment in experiments]
    return Job(
        label,
        stages.build_sequences(data_dir, _BASE_ID),
        remover(data_dir / "sequences", *transforms),
    )


@line("build_sequences", fixtures_gb=5.7, scratch_gb=10)
def build_sequences(bench: Bench) -> list[Row]:
    """build_sequences with 874,000 slices of 1,536 floats in 25,000 series."""
    num_slices, num_series = bench.pick((_NUM_SLICES, _NUM_SERIES), (3_000, 90))
    data_dir = embeddings(bench, num_slices, num_series, _DIM)
    job = sequences_job("build_sequences", data_dir)
    usage = bench.alternate([job], repeats=1)["build_sequences"].usage
    job.before()
    note = "synthetic embeddings; the slices of a series lie scattered over all shards; one run"
    return [
        make_row(
            "build_sequences.wall",
            f"build_sequences, {num_slices:,} slices of {_DIM:,} numbers in {num_series:,} series",
            figure=number(usage.wall_seconds, "s"),
            goal=Goal("wall", at_most=600, unit=" s"),
            judged=[usage.wall_seconds],
            usage=usage,
            note=note,
        ),
        make_row(
            "build_sequences.memory",
            f"build_sequences, peak memory, {num_slices:,} slices",
            figure=number(usage.peak_tree_gb, "GB"),
            goal=Goal("peak", at_most=2, unit=" GB"),
            judged=[usage.peak_tree_gb],
            usage=usage,
            note=note,
        ),
    ]
