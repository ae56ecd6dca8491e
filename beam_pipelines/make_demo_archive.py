"""Makes a demo archive: head phantoms in the real archive's layout, to run everything without it.

    python -m beam_pipelines.make_demo_archive --output demo.zip --patients 100 --seed 7

The zip has the real archive's layout, header variants and known defects: see `phantom_headers`.
The pictures are drawn, no patient is in them. The same seed gives the same bytes with any number of
workers, on the same kind of machine with the same versions of NumPy, OpenCV, pydicom and zlib.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_pipelines import storage
from beam_pipelines.errors import UserError, exit_with, require

if TYPE_CHECKING:
    from beam_pipelines.demo_archive import Summary

_EXAMPLES = """\
examples:
  # about 3,300 slices, 0.75 GB, a minute on two cores: enough to train a small model
  python -m beam_pipelines.make_demo_archive --output demo.zip --patients 100

  # a few seconds, for a smoke test; with the answers for the test slices beside it
  python -m beam_pipelines.make_demo_archive --output tiny.zip --patients 6 --solution tiny.csv
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipelines.make_demo_archive",
        description="Makes a zip of drawn head-CT slices in the layout of the RSNA 2019 archive.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", required=True, help="the zip to write, a local path or gs://..."
    )
    parser.add_argument("--patients", type=int, default=100, help="patients (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")
    parser.add_argument(
        "--test_fraction", type=float, default=0.2,
        help="share of the patients whose slices are in stage_2_test (default: 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--broken", type=int, default=1,
        help="train slices whose pixel data are cut short, as one real slice is (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1,
        help="worker processes; the zip does not depend on it (default: all cores)",
    )  # fmt: skip
    parser.add_argument(
        "--solution", default=None,
        help="also write the test slices' labels to this CSV, to score predictions with",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Raises UserError for what cannot work, before any slice is drawn."""
    require(args.patients >= 1, f"--patients must be at least 1. Received: {args.patients}.")
    require(args.seed >= 0, f"--seed must not be negative. Received: {args.seed}.")
    require(args.workers >= 1, f"--workers must be at least 1. Received: {args.workers}.")
    require(
        0.0 <= args.test_fraction < 1.0,
        f"--test_fraction must be at least 0 and below 1. Received: {args.test_fraction}.",
    )
    # No series has fewer than 20 slices.
    train_slices = 20 * (args.patients - round(args.test_fraction * args.patients))
    require(
        0 <= args.broken <= max(train_slices, 1),
        f"--broken must be 0 to {train_slices} for {args.patients} patients. "
        f"Received: {args.broken}.",
    )
    for flag, path in (("--output", args.output), ("--solution", args.solution)):
        if path is None:
            continue
        require(
            not storage.is_folder(path),
            f"{flag} must name a file. Received a folder: {path}. Add a file name to it.",
        )
        require(
            args.overwrite or not storage.exists(path),
            f"{flag}: {path} exists. Choose another name, or add --overwrite to replace it.",
        )


def report(summary: "Summary", seconds: float) -> str:
    """Returns the closing lines: what the archive holds."""
    from beam_pipelines.demo_archive import LABEL_NAMES

    lines = [
        f"{summary.patients} patients, {sum(summary.series.values())} series, "
        f"{summary.slices['train']} train and {summary.slices['test']} test slices, "
        f"{summary.size / 1e6:.0f} MB, {seconds:.0f} s"
    ]
    for subset, count in summary.slices.items():
        if count:
            shares = (
                f"{name} {positive} ({positive / count:.1%})"
                for name, positive in zip(LABEL_NAMES, summary.positives[subset], strict=True)
            )
            lines.append(f"positive {subset} slices: {', '.join(shares)}")
    return "\n".join(lines)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 10 == 0 or done == total):
        end = "\n" if done == total else ""
        print(f"\r{done} of {total} slices", end=end, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the archive that the command line asks for."""
    args = parse_args(argv)
    check_args(args)
    # NumPy, OpenCV and pydicom take longer to import than --help should.
    from beam_pipelines.demo_archive import write_archive
    from beam_pipelines.demo_plan import plan_demo

    start = time.monotonic()
    plan = plan_demo(args.patients, args.seed, args.test_fraction, args.broken)
    try:
        summary = write_archive(plan, args.output, args.workers, _progress, args.solution)
    except OSError as error:
        raise UserError(
            f"--output: cannot write {args.output}: {error}. Check the folder and its free space."
        ) from error
    print(f"{args.output}: {report(summary, time.monotonic() - start)}")


if __name__ == "__main__":
    exit_with(main)
