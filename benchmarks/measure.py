"""What one run of a command costs: wall time, CPU time and memory of its whole process tree."""

import datetime
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.05
# Listing a process's descendants reads the state of every process of the machine, 1 ms; reading
# the memory of a known one takes 20 microseconds.
_SAMPLES_PER_LISTING = 5
_ERROR_LINES = 20


class RunError(RuntimeError):
    """A measured command failed; the text is the end of what it wrote to stderr."""


@dataclass(frozen=True)
class Usage:
    """What one run took.

    Attributes:
        wall_seconds: from start to exit.
        cpu_seconds: user and system time of the process and of all descendants that ended.
        peak_tree_gb: largest sum of resident memory over the tree in a sample, 1e9 bytes; pages
            that processes share count once for each.
        peak_process_gb: largest resident memory of one process in a sample, 1e9 bytes.
        finished: local time at the end, ISO 8601.
        output: what the command wrote to stdout.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_tree_gb: float
    peak_process_gb: float
    finished: str
    output: str


def run_measured(command: Sequence[str], env: Mapping[str, str] | None = None) -> Usage:
    """Runs a command to its end, sampling its memory every 50 ms.

    Args:
        command: program and arguments.
        env: variables over this process's own.

    Raises:
        RunError: it exits with another code than 0.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        started = time.monotonic()
        # A session of its own, so that an interrupted benchmark can end the whole tree.
        process = subprocess.Popen(
            command,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        memory = _MemorySamples(process.pid)
        try:
            while True:
                # Unlike RUSAGE_CHILDREN, wait4 tells of this child and what it waited for alone.
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                memory.take()
                time.sleep(_SAMPLE_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            stderr.seek(0)
            lines = stderr.read().decode(errors="replace").splitlines()[-_ERROR_LINES:]
            raise RunError(f"exit code {process.returncode}: " + "\n".join(lines))
        stdout.seek(0)
        return Usage(
            wall_seconds=wall,
            cpu_seconds=used.ru_utime + used.ru_stime,
            peak_tree_gb=memory.peak_tree / 1e9,
            peak_process_gb=memory.peak_process / 1e9,
            finished=datetime.datetime.now().isoformat(timespec="seconds"),
            output=stdout.read().decode(),
        )


class _MemorySamples:
    """Peaks of the resident memory of a process and its descendants, in bytes."""

    def __init__(self, pid: int) -> None:
        self.peak_tree = 0
        self.peak_process = 0
        self._root = psutil.Process(pid)
        self._processes = [self._root]
        self._count = 0

    def take(self) -> None:
        """Takes one sample."""
        if self._count % _SAMPLES_PER_LISTING == 0:
            try:
                self._processes = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:  # it has just ended
                return
        self._count += 1
        sizes = [_resident_bytes(process) for process in self._processes]
        self.peak_tree = max(self.peak_tree, sum(sizes))
        self.peak_process = max(self.peak_process, *sizes)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def folder_bytes(folder: Path) -> int:
    """Bytes on disk of all files of a folder; those of sparse files that are there."""
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())
