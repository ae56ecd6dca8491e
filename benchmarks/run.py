"""Runs the benchmark: `python -m benchmarks.run --help`, or `make bench`."""

import argparse
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from beam_pipelines.errors import UserError, exit_with, require
from benchmarks import report
from benchmarks import slice_archive_sizes as sizes
from benchmarks.bench import Bench, remover
from benchmarks.lines import Line, Row, all_lines
from benchmarks.machine import describe_machine
from benchmarks.measure import RunError, folder_bytes

_DESCRIPTION = """\
Measures every stage against what it is compared with, in the same run, and prints one table:
figure, reference, ratio, goal, whether it is met, time and memory.

Reads nothing; makes its own data in --work_dir and keeps it there for the next run.
Writes --results, and every single measurement to <work_dir>/measurements.jsonl.
"""
_RESULTS = Path("benchmarks/RESULTS.md")
_QUICK_GB = 2.0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--quick", action="store_true",
        help="every line at a tiny size: shows that it runs, not what it costs",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="LINE", help="some lines; see --list")
    parser.add_argument("--list", action="store_true", help="list the lines and what they need")
    parser.add_argument(
        "--work_dir", type=Path, default=Path("build/bench"),
        help="where data is made and kept (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path,
        help=f"the table's file; rows of lines that do not run are kept (default: {_RESULTS}, "
        "with --quick RESULTS-quick.md in the work folder)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, help="measurements of each job, of which the least counts "
        "(default: 3, with --quick 1)",
    )  # fmt: skip
    return parser.parse_args(argv)


def choose_lines(names: Sequence[str] | None) -> list[Line]:
    """The lines of these names, all by default, in the order of the table."""
    lines = all_lines()
    for name in names or ():
        require(name in lines, f"--only {name}: no such line; there are: {', '.join(lines)}")
    return [line for line in lines.values() if not names or line.name in names]


def gigabytes_needed(lines: Sequence[Line], quick: bool) -> float:
    """Disk that lines need: the data of all, and what the largest writes at once."""
    if quick:
        return _QUICK_GB
    archives = [name for line in lines for name in line.archives]
    kept = sizes.gigabytes(archives, quick) + sum(line.fixtures_gb for line in lines)
    return kept + max(line.scratch_gb for line in lines)


def check_disk(lines: Sequence[Line], work: Path, quick: bool) -> None:
    """Raises UserError where the disk is too small, before anything is made."""
    needed = gigabytes_needed(lines, quick)
    there = folder_bytes(work) / 1e9
    free = shutil.disk_usage(work).free / 1e9
    print(
        f"needs about {needed:.0f} GB in {work}, where {there:.0f} GB are already and "
        f"{free:.0f} GB are free",
        file=sys.stderr,
    )
    require(
        needed <= there + free,
        f"--work_dir {work}: needs about {needed:.0f} GB, but holds {there:.0f} and has "
        f"{free:.0f} GB free; give another folder, or fewer lines with --only, or --quick",
    )


def measure(lines: Sequence[Line], bench: Bench) -> tuple[list[Row], list[str]]:
    """Measures lines one after the other.

    Returns:
        The rows, and the names of lines that failed; what went wrong has been printed.
    """
    rows: list[Row] = []
    failed = []
    for line in lines:
        bench.log(f"{line.name}: {line.what}")
        try:
            found = line.measure(bench)
        except RunError as error:
            bench.log(f"{line.name}: failed: {error}")
            failed.append(line.name)
        except Exception:
            bench.log(f"{line.name}: failed: {traceback.format_exc()}")
            failed.append(line.name)
        else:
            rows += found
            bench.log("".join(f"  = {r.name}: {r.figure}, {r.goal}: {r.met}\n" for r in found))
        remover(bench.scratch)()
    return rows, failed


def main() -> None:
    """Runs what the command line asks for."""
    args = parse_args(None)
    lines = choose_lines(args.only)
    if args.list:
        for line in lines:
            print(f"{line.name:24} {gigabytes_needed([line], False):5.1f} GB  {line.what}")
        return
    args.work_dir.mkdir(parents=True, exist_ok=True)
    results = args.results or (args.work_dir / "RESULTS-quick.md" if args.quick else _RESULTS)
    machine = describe_machine()
    old = report.read_results(results, machine)
    check_disk(lines, args.work_dir, args.quick)
    bench = Bench(
        args.work_dir.resolve(),
        args.quick,
        repeats=args.repeats or (1 if args.quick else 3),
        at_once=2 if args.quick else 1,
    )
    rows, failed = measure(lines, bench)
    merged = report.merge(old, rows, list(all_lines()))
    report.write_results(results, machine, merged, bench.num_distinct)
    print(report.render_table(rows))
    if args.quick:
        bench.log("these sizes are too small to judge by: they show that every line runs")
    if failed:
        raise UserError(f"lines failed: {', '.join(failed)}; their old rows are kept; see above")


if __name__ == "__main__":
    exit_with(main)
