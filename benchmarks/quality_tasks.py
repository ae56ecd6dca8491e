"""The tasks of the quality comparison, in phases, and the workers that they run in.

A worker process makes one row after the other with its share of the cores: neither an LSTM of 64
cells nor the start of a stage has work for two.
"""

import contextlib
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from beam_pipelines.progress import num_cores
from benchmarks import quality_data, quality_models, quality_rows
from benchmarks.quality_data import SETS, Workspace
from benchmarks.quality_rows import FOLDS, PLAIN, ROWS, Row, config_of

# One call in a worker: what to call it in the log, the function and its arguments.
Task = tuple[str, Callable[..., None], tuple[Any, ...]]


def phases(workspace: Workspace, pairs: Sequence[tuple[Row, int]]) -> list[list[Task]]:
    """What to run; tasks of a phase need only what the phases before have made."""
    sizes = workspace.sizes
    seeds = sorted({seed for _, seed in pairs})
    archives: list[Task] = [
        (f"draw_{name}", quality_data.draw, (workspace, seed, name))
        for seed in seeds
        for name in SETS
    ]
    roots: dict[Path, Task] = {}
    for row, seed in pairs:
        config = config_of(row, sizes, seed)
        for name in SETS:
            root = workspace.root(seed, name, config.examples)
            call = (workspace, seed, name, config)
            roots.setdefault(root, (f"build_{root.name}", quality_data.build_root, call))
    bases = sorted(
        {
            (row.made_from, seed)
            for row, seed in pairs
            if row.how == quality_rows.TRAIN_SEQUENCE and row.made_from
        }
    )
    sequences: list[Task] = [
        (f"sequences_{name}", quality_models.prepare_sequences, (workspace, ROWS[name], seed))
        for name, seed in bases
    ]

    def rows_made(*hows: str) -> list[Task]:
        chosen = [(row, seed) for row, seed in pairs if row.how in hows]
        # What takes longest early, so that no core waits for it at the end.
        chosen.sort(key=lambda pair: (pair[0].name != PLAIN, pair[0].stage != FOLDS))
        return [(r.name, quality_models.make_row, (workspace, r, s)) for r, s in chosen]

    return [
        archives,
        list(roots.values()),
        rows_made(quality_rows.TRAIN_BASE),
        [*sequences, *rows_made(quality_rows.PRIOR, quality_rows.RESCORE_BASE)],
        rows_made(quality_rows.TRAIN_SEQUENCE),
        rows_made(quality_rows.SCALE),
    ]


def _start_worker(threads: int) -> None:
    """Gives a worker its share of the cores, before it loads TensorFlow."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)


def _run_task(
    function: Callable[..., None], arguments: tuple[Any, ...], log: Path
) -> tuple[float, float]:
    """Runs a task; what it prints goes to a file.

    Returns:
        Wall seconds, and the worker's peak memory so far in GB.

    Raises:
        RuntimeError: it failed; the traceback as text, because not every exception can be sent.
    """
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            function(*arguments)
        except Exception:
            raise RuntimeError(traceback.format_exc()) from None
        finally:
            _forget_models()
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return time.monotonic() - started, peak_gb


def _forget_models() -> None:
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()


def run_phase(workspace: Workspace, tasks: Sequence[Task], workers: int) -> list[str]:
    """Runs tasks side by side.

    Returns:
        Names of those that failed; what went wrong has been printed.
    """
    failed = []
    threads = max(1, num_cores() // workers)
    with ProcessPoolExecutor(
        workers,
        # A forked TensorFlow hangs.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(threads,),
    ) as pool:
        running = {}
        for name, function, arguments in tasks:
            seed = next(value for value in arguments if isinstance(value, int))
            log = workspace.log(name, seed)
            running[pool.submit(_run_task, function, arguments, log)] = f"{name} seed {seed}"
        try:
            for number, done in enumerate(as_completed(running), start=1):
                title = f"{number} of {len(running)}: {running[done]}"
                error = done.exception()
                if error is not None:
                    failed.append(running[done])
                    print(f"{title}: failed: {error}", file=sys.stderr)
                else:
                    seconds, peak_gb = done.result()
                    print(f"{title}: {seconds:.0f} s, peak {peak_gb:.1f} GB", file=sys.stderr)
        except KeyboardInterrupt:
            # Leaving the block would otherwise wait for all tasks.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed
