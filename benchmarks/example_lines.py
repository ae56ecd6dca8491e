"""Lines on build_examples: against the three scripts, against the bare loop, its memory."""

import hashlib
import math
from pathlib import Path

from benchmarks import stages
from benchmarks.arithmetic import ratio, slope
from benchmarks.bench import Bench, Job, Runs, copy_described, remover
from benchmarks.lines import Goal, Row, line, make_row, number, with_note

_OUTPUTS = ("train", "validation", "test", "quarantine")
# Slices a second and core that the issue asks for, by image size.
_RATES = {256: 700.0, 299: 500.0}
# Both sizes of an archive are cut into about as many shards, so that what shards cost falls out
# of the slope.
_SHARDS = 20
_SMALL, _LARGE = "1k", "10k"


class ExampleJobs:
    """Jobs that build the examples of one archive, by the stage and by the bare loop.

    Each writes into a folder of its own, which is emptied before each run.
    """

    def __init__(self, bench: Bench, archive: str, image_size: int) -> None:
        self.bench = bench
        self.num_slices = bench.num_slices(archive)
        self._name = archive
        self._image_size = image_size
        self._archive = bench.archive(archive)
        self._described = bench.described(archive)
        self._per_shard = max(1, self.num_slices // _SHARDS)

    def stage(self, threads: int | None) -> Job:
        """build_examples with a number of threads, or as by default."""
        label = f"stage-{threads or 'default'}-{self._name}"
        folder = self.bench.scratch / label
        copy_described(self._described, folder)
        command = stages.build_examples(
            self._archive, folder, "--image_size", self._image_size,
            "--slices_per_shard", self._per_shard, *stages.threads_flags(threads),
        )  # fmt: skip
        return Job(label, command, remover(*(folder / name for name in _OUTPUTS)))

    def bare(self, workers: int) -> Job:
        """The bare loop with a number of processes."""
        label = f"bare-{workers}-{self._name}"
        folder = self.bench.scratch / label
        command = stages.program(
            "benchmarks.bare_loop", "--archive", self._archive, "--output", folder,
            "--references", self._references(), "--image_size", self._image_size,
            "--workers", workers,
        )  # fmt: skip
        return Job(label, command, remover(folder))

    def _references(self) -> Path:
        path = self.bench.scratch / f"references-{self._name}.pickle"
        if not path.exists():
            command = stages.program(
                "benchmarks.bare_references", "--archive", self._archive,
                "--data_dir", self._described, "--output", path,
                "--slices_per_shard", self._per_shard,
            )  # fmt: skip
            self.bench.prepare(f"references of {self._name}", command)
        return path


class ExampleRuns:
    """Measurements of stage and bare loop at two sizes, as slopes over slices."""

    def __init__(self, bench: Bench, small: str, large: str, image_size: int) -> None:
        self.small = ExampleJobs(bench, small, image_size)
        self.large = ExampleJobs(bench, large, image_size)
        sides = (self.small, self.large)
        jobs = [side.stage(count) for count in (1, 2, None) for side in sides]
        jobs += [side.bare(count) for count in (1, 2) for side in sides]
        self._names = (small, large)
        self.runs = bench.alternate(jobs)
        stage, bare = (bench.scratch / f"{kind}-1-{large}" for kind in ("stage", "bare"))
        self.identical = _digest(stage) == _digest(bare)

    def of(self, kind: str, count: object) -> Runs:
        """The runs over the larger archive."""
        return self.runs[f"{kind}-{count}-{self._names[1]}"]

    def slope(self, kind: str, count: object, quantity: str) -> float:
        """Seconds a slice, `cpu` or `wall`, with one or two workers or by default."""
        values = [getattr(self.runs[f"{kind}-{count}-{n}"], quantity) for n in self._names]
        return slope(values, (self.small.num_slices, self.large.num_slices))

    @property
    def note(self) -> str:
        """Sizes, and whether both ways made the same."""
        same = "the same records" if self.identical else "OTHER RECORDS than the bare loop"
        return f"slope from {self.small.num_slices:,} to {self.large.num_slices:,} slices; {same}"


def _digest(folder: Path) -> str:
    """A hash of all records under a folder, by file name."""
    digest = hashlib.blake2b()
    for path in sorted(folder.rglob("shard-*.tfrecord")):
        digest.update(f"{path.parent.name}/{path.name}".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _speed_rows(bench: Bench, image_size: int) -> tuple[list[Row], ExampleRuns]:
    runs = ExampleRuns(bench, _SMALL, _LARGE, image_size)
    prefix = f"build_examples_{image_size}"
    rows = []
    for count, words, limit in ((1, "one process", 1.05), (2, "two workers", 1.10)):
        figure, reference = runs.slope("stage", count, "cpu"), runs.slope("bare", count, "cpu")
        value = ratio(figure, reference)
        rows.append(
            make_row(
                f"{prefix}.cpu_{count}",
                f"build_examples, {image_size} px, {words}, CPU a slice, against the bare loop",
                figure=number(figure * 1e3, "ms"),
                reference=number(reference * 1e3, "ms"),
                ratio=value,
                goal=Goal("ratio", at_most=limit),
                judged=[value],
                usage=runs.of("stage", count).usage,
                note=runs.note,
            )
        )
    figure, reference = 1 / runs.slope("stage", 1, "cpu"), 1 / runs.slope("bare", 1, "cpu")
    rows.append(
        make_row(
            f"{prefix}.rate",
            f"build_examples, {image_size} px, slices a second and core",
            figure=number(figure, "slices/s"),
            reference=number(reference, "slices/s (bare loop)"),
            ratio=ratio(figure, reference),
            goal=Goal("rate", at_least=_RATES[image_size], unit=" slices/s"),
            judged=[figure],
            usage=runs.of("stage", 1).usage,
            note=runs.note,
        )
    )
    return rows, runs


def _gain_rows(prefix: str, words: str, runs: ExampleRuns) -> list[Row]:
    """All cores against one thread, beside what a bare pool of two gains."""
    one = runs.slope("stage", 1, "wall")
    reference = ratio(runs.slope("bare", 1, "wall"), runs.slope("bare", 2, "wall"))
    rows = []
    for suffix, count, how in (
        ("gain", 2, "two threads"),
        ("gain_default", None, "default flags (all cores)"),
    ):
        gain = ratio(one, runs.slope("stage", count or "default", "wall"))
        value = ratio(gain, reference)
        rows.append(
            make_row(
                f"{prefix}.{suffix}",
                f"build_examples, 256 px{words}, {how} against one thread",
                figure=number(gain, "times"),
                reference=number(reference, "times (bare pool of two)"),
                ratio=value,
                goal=Goal("ratio", at_least=0.95),
                judged=[value],
                usage=runs.of("stage", count or "default").usage,
                note=f"{runs.note}; wall",
            )
        )
    return rows


@line("build_examples_256", archives=(_SMALL, _LARGE), scratch_gb=4)
def build_examples_256(bench: Bench) -> list[Row]:
    """build_examples at 256 px against the bare loop, one and two workers."""
    rows, runs = _speed_rows(bench, 256)
    return rows + _gain_rows("build_examples_256", "", runs)


@line("build_examples_299", archives=(_SMALL, _LARGE), scratch_gb=5)
def build_examples_299(bench: Bench) -> list[Row]:
    """build_examples at 299 px against the bare loop, one and two workers."""
    return _speed_rows(bench, 299)[0]


@line("build_examples_uneven", archives=("uneven_1k", "uneven_10k"), scratch_gb=4)
def build_examples_uneven(bench: Bench) -> list[Row]:
    """build_examples with two workers on shards of very uneven size."""
    runs = ExampleRuns(bench, "uneven_1k", "uneven_10k", 256)
    note = "one patient has a fifth of the slices; the bare pool's pieces are even"
    rows = _gain_rows("build_examples_uneven", ", uneven shards", runs)
    return [with_note(row, note) for row in rows]


@line("three_scripts", archives=(_SMALL, _LARGE), scratch_gb=3)
def three_scripts(bench: Bench) -> list[Row]:
    """build_examples at 256 px against the three scripts of old."""
    sides = [ExampleJobs(bench, name, 256) for name in (_SMALL, _LARGE)]
    counts = bench.pick((200, 1_000), (40, 100))
    archive = bench.archive(_SMALL)
    scripts = []
    for count in counts:
        folder = bench.scratch / f"three_scripts-{count}"
        flags = ["--archive", archive, "--output", folder, "--slices", count]
        command = stages.program("benchmarks.three_scripts", *flags)
        scripts.append(Job(f"three_scripts-{count}", command, remover(folder)))
    runs = bench.alternate([*(side.stage(1) for side in sides), *scripts])
    figure = slope(
        [runs[f"stage-1-{name}"].cpu for name in (_SMALL, _LARGE)],
        [side.num_slices for side in sides],
    )
    reference = slope([runs[job.label].cpu for job in scripts], counts)
    value = ratio(reference, figure)
    return [
        make_row(
            "three_scripts.cpu",
            "build_examples, 256 px, CPU a slice, against the three scripts",
            figure=number(figure * 1e3, "ms"),
            reference=number(reference * 1e3, "ms"),
            ratio=value,
            goal=Goal("reference / figure", at_least=14),
            judged=[value],
            usage=runs[f"stage-1-{_LARGE}"].usage,
            note=f"slopes: {sides[0].num_slices:,} to {sides[1].num_slices:,} slices, scripts "
            f"{counts[0]:,} to {counts[1]:,}; the scripts' third pass included, "
            "extract_metadata is not",
        )
    ]


@line("build_examples_memory", archives=("5k", "40k"), scratch_gb=2)
def build_examples_memory(bench: Bench) -> list[Row]:
    """Peak memory of build_examples at 5,000 and 40,000 slices."""
    rows, peaks = [], {}
    for name in ("5k", "40k"):
        folder = bench.scratch / name
        copy_described(bench.described(name), folder)
        command = stages.build_examples(bench.archive(name), folder)
        label = f"memory-{name}"
        usage = bench.alternate([Job(label, command)], repeats=1)[label].usage
        remover(folder)()
        peaks[name] = usage
        count = bench.num_slices(name)
        rows.append(
            make_row(
                f"build_examples_memory.{name}",
                f"build_examples, peak memory at {count:,} slices",
                figure=number(usage.peak_tree_gb, "GB"),
                goal=Goal("all processes", at_most=0.5, unit=" GB"),
                judged=[usage.peak_tree_gb, usage.peak_process_gb],
                usage=usage,
                note="flags as by default: all cores",
            )
        )
    small, large = peaks["5k"].peak_tree_gb, peaks["40k"].peak_tree_gb
    growth = (large / small - 1) * 100 if small else math.nan
    rows.append(
        make_row(
            "build_examples_memory.growth",
            "build_examples, growth of its peak memory with eight times the slices",
            figure=f"{growth:.1f}%",
            goal=Goal("growth", at_most=5, unit="%"),
            judged=[growth],
            usage=peaks["40k"],
        )
    )
    return rows
