"""Runs of pipelines: Beam's own options, parsed strictly, and errors and progress for people.

Beam itself only warns of an option that it does not know, so a misspelt `--num_worker` would cost a
night on the wrong machine; here it is an error. Beam is imported when a pipeline is about to run:
its import takes two seconds, which `--help` and a wrong flag need not wait for.
"""

import contextlib
import difflib
import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from beam_pipelines.errors import UserError, require
from beam_pipelines.progress import num_cores, watch

# How a traceback spells it.
_USER_ERROR = f"{UserError.__module__}.{UserError.__qualname__}: "


def pipeline_options(beam_args: Sequence[str], *, threads: bool = True) -> Any:
    """Beam's options from the flags that the main did not know.

    Args:
        beam_args: flags.
        threads: whether the embedded runner builds shards on all cores unless told otherwise; False
            for stages whose work is one TensorFlow model that takes every core itself.

    Raises:
        UserError: Beam does not know a flag either, or its value cannot be.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipelines.transforms import BuildOptions

    _quiet_beam()
    _refuse_stray_values(beam_args)
    options = PipelineOptions(list(beam_args))
    known = options.get_all_options()
    unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean --{near[0]}?" if near else "see --help and --help_beam"
        raise UserError(f"unknown flag --{name}; {hint}")
    given = {flag.split("=")[0] for flag in beam_args}
    if known["runner"] in (None, "DirectRunner", "FnApiRunner"):
        flags = [*beam_args, "--runner=FnApiRunner"]
        if "--direct_num_workers" in given and "--direct_running_mode" not in given:
            flags.append("--direct_running_mode=multi_threading")
        in_beam = given & {"--direct_num_workers", "--direct_running_mode", "--build_threads"}
        if threads and not in_beam:
            # One more than cores: it works while another waits for the disk or the interpreter's
            # lock. On two cores three threads took 8.5 s where two took 9.4.
            flags.append(f"--build_threads={num_cores() + 1}")
        options = PipelineOptions(flags)
    build_threads = options.view_as(BuildOptions).build_threads
    require(build_threads >= 1, f"--build_threads: received {build_threads}; give a number from 1")
    return options


def _refuse_stray_values(beam_args: Sequence[str]) -> None:
    """Each of Beam's flags takes one value at most; Beam would drop any other."""
    for before, arg in itertools.pairwise(["", *beam_args]):
        takes_value = before.startswith("-") and "=" not in before
        if not arg.startswith("-") and not takes_value:
            raise UserError(f"unexpected argument {arg!r}; every argument is a --flag")


def _quiet_beam() -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_user_error)


def _is_no_user_error(record: logging.LogRecord) -> bool:
    """False for Beam's tracebacks of a worker's UserError, which the main reports in one line."""
    error = record.exc_info[1] if record.exc_info else record.msg
    return not isinstance(error, UserError) and _USER_ERROR not in record.getMessage()


@contextlib.contextmanager
def run_pipeline(options: Any, stage: str = "", total: int = 0) -> Iterator[Any]:
    """A Beam pipeline that runs when the block ends.

    Args:
        options: from `pipeline_options`.
        stage: title of the progress bar, which is for work on this machine; none without a title.
        total: slices that are to come.

    Raises:
        UserError: one was raised inside a worker.
    """
    import apache_beam as beam

    from beam_pipelines.transforms import BuildOptions, raise_user_error

    local = options.get_all_options()["runner"] == "FnApiRunner"
    watched = watch(stage, total) if stage and local else contextlib.nullcontext(None)
    try:
        with watched as progress_file:
            options.view_as(BuildOptions).progress_file = progress_file
            with beam.Pipeline(options=options) as pipeline:
                yield pipeline
        raise_user_error(pipeline.result)
    except Exception as error:
        message = _user_error_in(error)
        if message is None:
            raise
        raise UserError(message) from None


def _user_error_in(error: Exception) -> str | None:
    """A worker's UserError: Beam hands it on itself or within a longer text, and adds to both."""
    text = str(error)
    if not isinstance(error, UserError):
        lines = [line for line in text.splitlines() if _USER_ERROR in line]
        if not lines:
            return None
        text = lines[-1].split(_USER_ERROR, 1)[1]
    return text.split(" [while running '", 1)[0]
