"""Lines on reading the archive: its headers, and its list of members."""

from pathlib import Path

from benchmarks import directory_archive_sizes as sizes
from benchmarks import stages
from benchmarks.arithmetic import ratio, slope
from benchmarks.bench import Bench, Job, remover
from benchmarks.lines import Goal, Row, line, make_row, number

_SMALL, _LARGE = "1k", "10k"


@line("extract_metadata", archives=(_SMALL, _LARGE), scratch_gb=0.1)
def extract_metadata(bench: Bench) -> list[Row]:
    """extract_metadata, slices a second and core, against pydicom in a loop."""
    jobs = []
    counts = [bench.num_slices(name) for name in (_SMALL, _LARGE)]
    for name in (_SMALL, _LARGE):
        folder = bench.scratch / name
        command = stages.extract_metadata(bench.archive(name), folder)
        jobs.append(Job(f"metadata-{name}", command, remover(folder)))
    pydicom_counts = bench.pick((200, 1_000), (20, 100))
    scripts = []
    for count in pydicom_counts:
        flags = ["--archive", bench.archive(_SMALL), "--slices", count]
        flags += ["--output", bench.scratch / f"pydicom-{count}", "--script", "metadata"]
        command = stages.program("benchmarks.three_scripts", *flags)
        scripts.append(Job(f"pydicom-{count}", command))
    runs = bench.alternate([*jobs, *scripts])
    figure = 1 / slope([runs[job.label].cpu for job in jobs], counts)
    reference = 1 / slope([runs[job.label].cpu for job in scripts], pydicom_counts)
    return [
        make_row(
            "extract_metadata.rate",
            "extract_metadata, slices a second and core",
            figure=number(figure, "slices/s"),
            reference=number(reference, "slices/s (the old metadata script)"),
            ratio=ratio(figure, reference),
            goal=Goal("rate", at_least=2_500, unit=" slices/s"),
            judged=[figure],
            usage=runs[f"metadata-{_LARGE}"].usage,
            note=f"CPU slope from {counts[0]:,} to {counts[1]:,} slices, script "
            f"{pydicom_counts[0]:,} to {pydicom_counts[1]:,}",
        )
    ]


@line("list_members", fixtures_gb=0.4)
def list_members(bench: Bench) -> list[Row]:
    """Every member of an archive of 874,035, against zipfile."""
    count = bench.pick(sizes.NUM_MEMBERS, 20_000)

    def make(folder: Path) -> None:
        output = folder / "members.zip"
        flags = ["--output", output, "--members", count]
        command = stages.program("benchmarks.directory_archive", *flags)
        bench.prepare(f"archive of {count:,} members", command)

    parameters = {"members": count, "version": sizes.VERSION}
    path = bench.fixture("members", parameters, make) / "members.zip"
    jobs = [
        Job(way, stages.program("benchmarks.directory_archive", "--list", path, "--by", way))
        for way in ("archive", "zipfile")
    ]
    runs = bench.alternate(jobs)
    found = {run.usages[0].output for run in runs.values()}
    if found != {f"{count}\n"}:
        raise ValueError(f"the listings have {found} members, not {count}")
    seconds, reference = runs["archive"].wall, runs["zipfile"].wall
    return [
        make_row(
            "list_members.wall",
            f"open an archive of {count:,} members and look at each",
            figure=number(seconds, "s"),
            reference=number(reference, "s (zipfile)"),
            ratio=ratio(seconds, reference),
            goal=Goal("wall", at_most=5, unit=" s"),
            judged=[seconds],
            usage=runs["archive"].usage,
            note="start of Python included; all members kept in a list",
        )
    ]
