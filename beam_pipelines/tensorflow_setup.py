"""TensorFlow's first import: without its start-up log, and with memory that is kept.

Call `load_tensorflow` before the first `import tensorflow` of a process.
"""

import ctypes
import os
import sys
import tempfile
from typing import Any

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 << 20


def load_tensorflow() -> Any:
    """Imports TensorFlow and returns the module; costs nothing when it is loaded already.

    Its libraries print four lines on missing GPUs before any log level applies. They are held back
    and shown only if the import fails. TF_CPP_MIN_LOG_LEVEL, where it is set, stays.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    _keep_freed_memory()
    # Off by default on CPUs without AVX-512, where it trains small_cnn a third faster too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import tensorflow

        return tensorflow
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            import tensorflow

            return tensorflow
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _keep_freed_memory() -> None:
    """Makes glibc keep what TensorFlow frees, where the C library is glibc.

    Each step allocates the same large tensors again; by default each is mapped, zeroed page by
    page and unmapped. Training small_cnn on two cores took 5.2 million page faults and 16.9 s of
    system time for 17 s of work; with this 23 thousand faults and 1 s.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)
