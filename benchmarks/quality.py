"""Compares models and settings on drawn phantoms: `python -m benchmarks.quality`, `make quality`.

Interrupted, start it again: sets, models and rows that are there are kept. A row whose settings
have changed is made again.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from beam_pipelines.errors import exit_with, require
from beam_pipelines.progress import num_cores
from benchmarks import quality_data, quality_report, quality_rows, quality_tasks
from benchmarks.bench import code_fingerprint
from benchmarks.machine import describe_machine
from benchmarks.quality_data import Workspace
from benchmarks.quality_lines import Results
from benchmarks.quality_rows import Row, key_of

_RESULTS = Path("benchmarks/quality.md")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Trains each row's model on drawn head CTs and judges it on patients that "
        "took no part in training, choice of epoch or calibration. Writes --results.",
        allow_abbrev=False,
    )
    parser.add_argument("--only", nargs="+", metavar="ROW", help="some rows, and what they need")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="SEED",
        help="seeds of sets and models (default: 1 2 3)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the rows and what is there")
    parser.add_argument("--report", action="store_true", help="only render what is there")
    parser.add_argument(
        "--redo", action="store_true", help="make rows again that other code has made"
    )
    parser.add_argument(
        "--quick", action="store_true",
        help="12 patients, 32 px, one epoch: shows that it runs, not what is better",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=num_cores(),
        help="processes that share the cores, a row each (default: a process a core)",
    )  # fmt: skip
    parser.add_argument(
        "--work_dir", type=Path, default=Path("build/quality"),
        help="where sets, models and results are kept (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path,
        help=f"the report (default: {_RESULTS}, with --quick quality-quick.md in the work folder)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    require(args.workers >= 1, f"--workers: received {args.workers}; give a number from 1")
    require(min(args.seeds) >= 0, f"--seeds: received {min(args.seeds)}; give numbers from 0")
    return args


def read_made(
    workspace: Workspace, row: Row, seed: int, code: str | None = None
) -> dict[str, Any] | None:
    """A row's result, where it is there and was made with the row's present settings.

    Args:
        workspace: where results are.
        row: the row.
        seed: the seed.
        code: fingerprint of the code that must have made it; None for any.
    """
    path = workspace.result(row.name, seed)
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    same = found["key"] == key_of(row, workspace.sizes, seed) and code in (None, found["code"])
    return found if same else None


def missing(
    workspace: Workspace, rows: Iterable[Row], seeds: Sequence[int], code: str | None
) -> list[tuple[Row, int]]:
    """Rows and seeds that are to be made."""
    return [
        (row, seed)
        for row in rows
        for seed in seeds
        if read_made(workspace, row, seed, code) is None
    ]


def collect(workspace: Workspace, seeds: Sequence[int]) -> Results:
    """All results of present settings that are there."""
    found = {}
    for row in quality_rows.ALL_ROWS:
        for seed in seeds:
            result = read_made(workspace, row, seed)
            if result is not None:
                found[row.name, seed] = result
    return found


def _list(workspace: Workspace, rows: Sequence[Row], seeds: Sequence[int]) -> None:
    for row in rows:
        made = [str(seed) for seed in seeds if read_made(workspace, row, seed)]
        print(f"{row.name:18} {row.stage:12} made: {' '.join(made) or '-':8} {row.what}")


def _command(args: argparse.Namespace) -> str:
    seeds = " ".join(map(str, args.seeds))
    return f"python -m benchmarks.quality --seeds {seeds}{' --quick' * args.quick}"


def write_report(workspace: Workspace, args: argparse.Namespace) -> Path:
    """Renders what is there to the report's file."""
    results = collect(workspace, args.seeds)
    require(bool(results), f"{workspace.folder}: no results yet; leave --report out to make them")
    there = sorted({seed for _, seed in results})
    sets = {
        seed: quality_data.describe_sets(
            workspace, seed, quality_rows.plain_config(workspace.sizes, seed)
        )
        for seed in there
    }
    path = args.results or (args.work_dir / "quality-quick.md" if args.quick else _RESULTS)
    text = quality_report.render(
        results, sets, workspace.sizes, describe_machine(), code_fingerprint(), _command(args)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def main() -> None:
    """Runs what the command line asks for."""
    args = parse_args(None)
    sizes = quality_rows.QUICK if args.quick else quality_rows.FULL
    workspace = Workspace(args.work_dir / ("quick" if args.quick else "full"), sizes)
    rows = quality_rows.choose_rows(args.only)
    if args.list:
        _list(workspace, rows, args.seeds)
        return
    failed = []
    if not args.report:
        code = code_fingerprint() if args.redo else None
        started = time.monotonic()
        for tasks in quality_tasks.phases(workspace, missing(workspace, rows, args.seeds, code)):
            if tasks:
                failed += quality_tasks.run_phase(workspace, tasks, args.workers)
        print(f"{(time.monotonic() - started) / 60:.1f} minutes", file=sys.stderr)
    print(write_report(workspace, args))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    exit_with(main)
