"""Runs a stage and says what it took: `python -m launch.measure beam_pipelines.predict --help`.

Prints wall time, CPU time of the stage and its children, and the peak memory of the largest
process among them, to stderr. The exit code is the stage's own.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Sequence


def run_stage(command: Sequence[str]) -> int:
    """Runs `python -m command...` with this interpreter and returns its exit code."""
    started = time.monotonic()
    code = subprocess.call([sys.executable, "-m", *command])
    seconds = time.monotonic() - started
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    # ru_maxrss is in KB, on macOS in bytes.
    gigabytes = usage.ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    print(
        f"   {command[0]}: {seconds:.1f} s, CPU {usage.ru_utime + usage.ru_stime:.1f} s, "
        f"peak {gigabytes:.2f} GB",
        file=sys.stderr,
    )
    return code


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("error: launch.measure: give a module and its flags", file=sys.stderr)
        sys.exit(2)
    # A stage that a signal has ended has a negative code; shells say 128 + signal.
    result = run_stage(sys.argv[1:])
    sys.exit(result if result >= 0 else 128 - result)
