"""The line on process_labels."""

from pathlib import Path

from benchmarks import stages
from benchmarks.arithmetic import ratio
from benchmarks.bench import Bench, Job, remover
from benchmarks.lines import Goal, Row, line, make_row, number

# Kaggle's stage 2: 4,516,842 rows, of which 24 are there twice.
NUM_SLICES, NUM_DUPLICATES = 752_803, 24
_LABELS_VERSION = 1


def label_file(bench: Bench, num_slices: int) -> Path:
    """A label file of so many slices; made when it is first asked for."""

    def make(folder: Path) -> None:
        command = stages.program(
            "benchmarks.label_file", "--output", folder / "labels.csv",
            "--slices", num_slices, "--duplicates", NUM_DUPLICATES,
        )  # fmt: skip
        bench.prepare(f"labels of {num_slices:,} slices", command)

    parameters = {"slices": num_slices, "version": _LABELS_VERSION}
    return bench.fixture(f"labels-{num_slices}", parameters, make) / "labels.csv"


@line("process_labels", fixtures_gb=0.2, scratch_gb=0.3)
def process_labels(bench: Bench) -> list[Row]:
    """process_labels at Kaggle's 4,516,842 rows, against pandas."""
    num_slices = bench.pick(NUM_SLICES, 20_000)
    path = label_file(bench, num_slices)
    stage, pandas = bench.scratch / "stage", bench.scratch / "pandas"
    jobs = [
        Job("stage", stages.process_labels(stage, "--labels", path), remover(stage)),
        Job(
            "pandas",
            stages.program("benchmarks.label_file", "--pandas", path, "--output", pandas),
            remover(pandas),
        ),
    ]
    runs = bench.alternate(jobs)
    usage = runs["stage"].usage
    rows = 6 * num_slices + NUM_DUPLICATES
    return [
        make_row(
            "process_labels.wall",
            f"process_labels, {rows:,} rows",
            figure=number(usage.wall_seconds, "s"),
            reference=number(runs["pandas"].wall, "s (pandas)"),
            ratio=ratio(usage.wall_seconds, runs["pandas"].wall),
            goal=Goal("wall", at_most=20, unit=" s"),
            judged=[usage.wall_seconds],
            usage=usage,
        ),
        make_row(
            "process_labels.memory",
            f"process_labels, peak memory, {rows:,} rows",
            figure=number(usage.peak_tree_gb, "GB"),
            reference=number(runs["pandas"].usage.peak_tree_gb, "GB (pandas)"),
            ratio=ratio(usage.peak_tree_gb, runs["pandas"].usage.peak_tree_gb),
            goal=Goal("peak", at_most=1.5, unit=" GB"),
            judged=[usage.peak_tree_gb],
            usage=usage,
        ),
    ]
