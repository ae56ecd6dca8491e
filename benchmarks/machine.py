"""What the machine is, as far as it bears on speed: no names, no paths."""

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

_PACKAGES = (
    "apache-beam",
    "tensorflow",
    "keras",
    "numpy",
    "numba",
    "opencv-python-headless",
    "deflate",
    "pydicom",
    "pyarrow",
)


@dataclass(frozen=True)
class Machine:
    """Where results were measured.

    Attributes:
        hardware: CPU, cores, memory.
        versions: operating system's kind, Python, packages.
    """

    hardware: str
    versions: str


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except FileNotFoundError:  # not Linux
        return platform.processor() or platform.machine()
    models = [x.split(":", 1)[1].strip() for x in text.splitlines() if x.startswith("model name")]
    return models[0] if models else platform.machine()


def describe_machine() -> Machine:
    """This machine and this environment; packages that are not installed are left out."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    versions = [f"{platform.system()}", f"Python {platform.python_version()}"]
    versions += [f"{name} {installed[name]}" for name in _PACKAGES if name in installed]
    # Cores that this process may use: fewer than the machine's in a container.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 1e9
    return Machine(
        hardware=f"{_cpu_model()}, {cores} cores, {memory:.0f} GB of memory",
        versions=", ".join(versions),
    )
