"""What a line measures with: runs, repeats, and data that is made once and kept."""

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import slice_archive_sizes as sizes
from benchmarks import stages
from benchmarks.arithmetic import best
from benchmarks.measure import Usage, run_measured

ROOT = Path(__file__).resolve().parent.parent
# Programs whose change makes data of their making stale.
_PACKAGES = ("beam_pipelines", "configs", "trainer")
_RECORD_MODULES = ("example_proto", "schema", "sequences", "shards", "splits", "tfrecord")
_MAKER_MODULES = ("embedding_shards", "experiments", "sequence_shards", "synthetic_series")
_PARAMETERS = "fixture.json"


def nothing() -> None:
    """Nothing is to be done before a run."""


@dataclass(frozen=True)
class Job:
    """A command to be measured several times.

    Attributes:
        label: names it among the jobs of its line, and in the raw measurements.
        command: program and arguments; it writes nothing that another job reads or writes.
        before: run before each measurement, unmeasured: removes what the run before has written.
    """

    label: str
    command: Sequence[str]
    before: Callable[[], None] = nothing


@dataclass(frozen=True)
class Runs:
    """All measurements of one job."""

    usages: tuple[Usage, ...]

    @property
    def cpu(self) -> float:
        """CPU seconds of the cheapest run."""
        return best(usage.cpu_seconds for usage in self.usages)

    @property
    def wall(self) -> float:
        """Wall seconds of the fastest run."""
        return best(usage.wall_seconds for usage in self.usages)

    @property
    def usage(self) -> Usage:
        """Least time and largest memory of the runs, for the table."""
        return dataclasses.replace(
            self.usages[-1],
            wall_seconds=self.wall,
            cpu_seconds=self.cpu,
            peak_tree_gb=max(usage.peak_tree_gb for usage in self.usages),
            peak_process_gb=max(usage.peak_process_gb for usage in self.usages),
        )

    def reported(self, name: str) -> float:
        """The smallest of a number that the program itself has printed as JSON."""
        return best(json.loads(usage.output.splitlines()[-1])[name] for usage in self.usages)


@dataclass
class Bench:
    """Runs and data of one benchmark.

    Attributes:
        work: folder of the data and of what the runs write.
        quick: whether sizes are tiny.
        repeats: measurements of each job.
        at_once: jobs that run at the same time; more than one only where figures do not matter.
        log: what runs are told to; progress.
    """

    work: Path
    quick: bool
    repeats: int
    at_once: int = 1
    log: Callable[[str], None] = field(default=lambda text: print(text, file=sys.stderr))

    def pick(self, full: Any, quick: Any) -> Any:
        """The first, or the second where sizes are tiny."""
        return quick if self.quick else full

    @property
    def scratch(self) -> Path:
        """A folder for what a line writes; emptied after each line."""
        path = self.work / "scratch"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def alternate(self, jobs: Iterable[Job], repeats: int | None = None) -> dict[str, Runs]:
        """Measures all jobs once, then all again: what disturbs the machine meets them alike.

        Args:
            jobs: their labels are distinct.
            repeats: measurements of each; None for the benchmark's own number.
        """
        jobs = list(jobs)
        usages: dict[str, list[Usage]] = {job.label: [] for job in jobs}
        with ThreadPoolExecutor(self.at_once) as pool:
            for _ in range(self.repeats if repeats is None else repeats):
                for job, usage in zip(jobs, pool.map(self._measure, jobs), strict=True):
                    usages[job.label].append(usage)
        return {label: Runs(tuple(found)) for label, found in usages.items()}

    def _measure(self, job: Job) -> Usage:
        job.before()
        usage = run_measured(job.command, ENVIRONMENT)
        self.log(
            f"  {job.label}: {usage.wall_seconds:.1f} s, CPU {usage.cpu_seconds:.1f} s, "
            f"peak {usage.peak_tree_gb:.2f} GB"
        )
        raw = {"label": job.label, "quick": self.quick, "command": list(job.command)}
        with (self.work / "measurements.jsonl").open("a") as file:
            file.write(json.dumps({**raw, **dataclasses.asdict(usage)}) + "\n")
        return usage

    def prepare(self, label: str, command: Sequence[str]) -> None:
        """Runs a command that is not measured."""
        self.log(f"  preparing {label}")
        run_measured(command, ENVIRONMENT)

    def fixture(
        self, name: str, parameters: Mapping[str, Any], make: Callable[[Path], None]
    ) -> Path:
        """A folder of data that is made once and kept while its parameters stay the same.

        Args:
            name: of the folder.
            parameters: JSON-like; all that the data depends on.
            make: fills the folder.
        """
        folder = self.work / ("quick" if self.quick else "full") / name
        saved = folder / _PARAMETERS
        if saved.exists() and json.loads(saved.read_text()) == dict(parameters):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        saved.write_text(json.dumps(parameters, indent=1) + "\n")
        return folder

    def num_slices(self, archive: str) -> int:
        """Slices of one of the archives."""
        return sizes.num_slices(archive, self.quick)

    def archive(self, name: str) -> Path:
        """One of the archives of `slice_archive_sizes`; drawn when it is first asked for."""
        spec = sizes.ARCHIVES[name]
        drawn = self._drawn()
        parameters = {"slices": self.num_slices(name), **self._drawn_parameters()}

        def make(folder: Path) -> None:
            flags = ["--drawn", drawn, "--output", folder / "archive.zip"]
            flags += ["--slices", self.num_slices(name), *(["--uneven"] * spec.uneven)]
            self.prepare(f"archive {name}", stages.program("benchmarks.slice_archive", *flags))

        return self.fixture(f"archive-{name}", parameters, make) / "archive.zip"

    def _drawn_parameters(self) -> dict[str, int]:
        return {"distinct": self.num_distinct, "seed": 1, "version": sizes.ARCHIVE_VERSION}

    @property
    def num_distinct(self) -> int:
        """Slices that are drawn; all archives repeat their pixels."""
        return self.pick(200, 40)

    def _drawn(self) -> Path:
        def make(folder: Path) -> None:
            flags = ["--drawn", folder / "drawn.pickle", "--draw", self.num_distinct]
            self.prepare("drawn slices", stages.program("benchmarks.slice_archive", *flags))

        return self.fixture("drawn", self._drawn_parameters(), make) / "drawn.pickle"

    def described(self, name: str) -> Path:
        """A data root with the metadata and labels of one of the archives."""
        archive = self.archive(name)

        def make(folder: Path) -> None:
            self.prepare(f"metadata of {name}", stages.extract_metadata(archive, folder))
            command = stages.process_labels(folder, "--archive", archive)
            self.prepare(f"labels of {name}", command)

        parameters = {"slices": self.num_slices(name), "code": code_fingerprint()}
        return self.fixture(f"described-{name}", parameters, make)

    def examples(self, name: str, image_size: int) -> Path:
        """A data root with the examples of one of the archives."""
        archive, source = self.archive(name), self.described(name)

        def make(folder: Path) -> None:
            copy_described(source, folder)
            command = stages.build_examples(archive, folder, "--image_size", image_size)
            self.prepare(f"examples of {name}, {image_size} px", command)

        parameters = {
            "slices": self.num_slices(name),
            "image_size": image_size,
            "code": code_fingerprint(),
        }
        return self.fixture(f"examples-{name}-{image_size}", parameters, make)


# TensorFlow's start-up log would be most of what a failed run shows.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def code_fingerprint() -> str:
    """A hash of the program's sources: data that its stages made is made anew when they change."""
    return _fingerprint(p for package in _PACKAGES for p in sorted((ROOT / package).glob("*.py")))


def record_fingerprint() -> str:
    """A hash of the sources that say how records are written, and of those that make them up."""
    written = [ROOT / "beam_pipelines" / f"{name}.py" for name in _RECORD_MODULES]
    return _fingerprint([*written, *(ROOT / "benchmarks" / f"{n}.py" for n in _MAKER_MODULES)])


def _fingerprint(paths: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def copy_described(source: Path, target: Path) -> None:
    """Copies metadata and labels, what a data root holds before its examples are built."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.name != _PARAMETERS:
            shutil.copy2(path, target)


def remover(*paths: Path) -> Callable[[], None]:
    """A function that removes folders and files, for `Job.before`."""

    def remove() -> None:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    return remove
