"""Flags of the mains, parsed strictly; what a main does not know is left for Beam (see `runs`)."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from beam_pipelines.errors import UserError
from beam_pipelines.layout import SPLITS

_BEAM_HELP = """\
Beam's own pipeline options are taken too and passed on as they are, among them:
  --runner RUNNER               FnApiRunner, Beam's embedded runner (default), or DataflowRunner.
                                DirectRunner means the embedded runner here.
  --build_threads N             shards that a worker process builds at once, this program's own
                                (default: one more than cores on the embedded runner, else 1)
  --direct_running_mode MODE    in_memory (default), multi_threading or multi_processing
  --direct_num_workers N        workers of the last two, dealt their shards at the start
  --project, --region, --temp_location, --staging_location, --max_num_workers,
  --machine_type, --sdk_container_image, --setup_file ...        for Dataflow
  --help_beam                   lists all of them
"""


class _StrictParser(argparse.ArgumentParser):
    """Reports a wrong flag in one line, as every other error of a user."""

    def error(self, message: str) -> Any:
        raise UserError(f"{self.prog}: {message}; see --help")


def make_parser(module: str, description: str, *, beam: bool = True) -> argparse.ArgumentParser:
    """A parser for a main.

    Args:
        module: as in `python -m module`.
        description: what it reads, does and writes.
        beam: whether the main runs a pipeline and takes Beam's options.
    """
    return _StrictParser(
        prog=f"python -m {module}",
        description=description,
        epilog=_BEAM_HELP if beam else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds `--data_dir`."""
    parser.add_argument(
        "--data_dir",
        required=True,
        help="root of everything that is written: a folder or gs://bucket/prefix",
    )


def add_archive(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Adds `--archive`."""
    parser.add_argument(
        "--archive",
        required=required,
        help="the DICOM files: a zip, a folder tree of *.dcm, or gs:// of either; never unpacked",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`."""
    parser.add_argument("--config", help="YAML file of settings; flags override it")


def add_max_bad_fraction(parser: argparse.ArgumentParser) -> None:
    """Adds `--max_bad_fraction`."""
    parser.add_argument(
        "--max_bad_fraction",
        type=_fraction,
        default=0.01,
        help="fail when more than this share of the slices is bad (default: %(default)s)",
    )


def _fraction(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"received {text!r}; give a number from 0 to 1")


def add_model_id(parser: argparse.ArgumentParser, kind: str) -> None:
    """Adds `--model_id`, which names an experiment of a kind: base or sequence."""
    folds = (
        "; the id of a group of folds, or data/experiments/ID, stands for all its members"
        if "base" in kind
        else ""
    )
    parser.add_argument(
        "--model_id",
        help=f"the {kind} experiment: its id (a timestamp), or the path of its folder, also in "
        f"another data root{folds} (default: the only one there is)",
    )


def add_base_data(parser: argparse.ArgumentParser) -> None:
    """Adds `--base_data`."""
    parser.add_argument(
        "--base_data",
        nargs="+",
        choices=SPLITS,
        default=list(SPLITS),
        help="which splits (default: all three)",
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses a main's own flags; what is left is `beam_args` of the result."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--help_beam" in argv:
        from apache_beam.options.pipeline_options import PipelineOptions

        with contextlib.suppress(SystemExit):
            PipelineOptions(["--help"]).get_all_options()
        sys.exit(0)
    args, rest = parser.parse_known_args(argv)
    args.beam_args = rest
    return args


def parse_all(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the flags of a main that runs no pipeline: any other flag is an error."""
    return parser.parse_args(list(sys.argv[1:] if argv is None else argv))


def main_entry(run: Callable[[Sequence[str] | None], None]) -> None:
    """What the last line of a main calls: user errors are one line and exit code 2."""
    from beam_pipelines.errors import exit_with

    exit_with(lambda: run(None))
