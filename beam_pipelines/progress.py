"""What a stage tells its user: a bar while it works, one line when it is done.

Workers may be threads or processes, so they append what they have done to a file, and the main
reads it several times a second. Without a terminal there is neither file nor bar.
"""

import contextlib
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from beam_pipelines.layout import DataLayout

if TYPE_CHECKING:
    from tqdm import tqdm

# Called by a builder as slices are done: how many were written, how many quarantined.
Advance = Callable[[int, int], None]
_REFRESH_SECONDS = 0.25
_ENTRY = struct.Struct("<QQ")


def no_progress(written: int, quarantined: int) -> None:
    """Progress that nobody watches."""


def append_to(path: str | None) -> Advance:
    """What a worker calls to say what it has done.

    Args:
        path: the file of `watch`; None where nobody watches.
    """
    if not path:
        return no_progress

    def advance(written: int, quarantined: int) -> None:
        # A short write to a file opened to append is one piece, whoever else writes.
        with Path(path).open("ab", buffering=0) as file:
            file.write(_ENTRY.pack(written, quarantined))

    return advance


@contextlib.contextmanager
def watch(stage: str, total: int) -> Iterator[str | None]:
    """Shows slices done, their rate, the time left and the quarantined while the block runs.

    Args:
        stage: the title.
        total: slices that are to come.

    Yields:
        The file for `append_to`, or None where stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tempfile.TemporaryDirectory(prefix="progress-") as folder:
        file = Path(folder) / "done"
        file.touch()
        bar = tqdm(total=total, desc=stage, unit=" slices", unit_scale=False, dynamic_ncols=True)
        stop = threading.Event()
        watcher = threading.Thread(target=_follow, args=(file, bar, stop), daemon=True)
        watcher.start()
        try:
            yield str(file)
        finally:
            stop.set()
            watcher.join()
            bar.close()


def _follow(file: Path, bar: "tqdm[NoReturn]", stop: threading.Event) -> None:
    quarantined, rest = 0, b""
    with file.open("rb") as entries:
        while True:
            last = stop.wait(_REFRESH_SECONDS)
            data = rest + entries.read()
            whole = len(data) // _ENTRY.size * _ENTRY.size
            rest, done = data[whole:], 0
            for written, bad in _ENTRY.iter_unpack(data[:whole]):
                done += written + bad
                quarantined += bad
            bar.set_postfix_str(f"{quarantined} quarantined", refresh=False)
            bar.update(done)
            if last:
                return


def report(stage: str, counts: dict[str, int], layout: DataLayout) -> None:
    """Prints one line on what a stage did with the slices that came in."""
    text = (
        f"{stage}: {counts['slices_in']} slices in, {counts['slices_written']} written, "
        f"{counts['slices_quarantined']} quarantined"
    )
    if counts["slices_quarantined"]:
        text += f" (see {layout.quarantine_csv(stage)})"
    if counts["shards_reused"]:
        text += f"; {counts['shards_reused']} shards were there already"
    print(text, file=sys.stderr)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
