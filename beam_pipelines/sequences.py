"""Windows over series and padding: how series of any length become arrays of one length."""

import numpy as np


def window_starts(num_slices: int, max_to_keep: int) -> list[int]:
    """Where windows start that cover a series, neighbours overlapping by at least a half.

    A series that fits gives [0]; 100 slices with 60 to keep give [0, 30, 40]: the last window ends
    with the series. A slice near a window's edge has its context cut on one side, but it is
    further inside another window, and predictions are averaged.

    Raises:
        ValueError: `num_slices` or `max_to_keep` is below 1.
    """
    if num_slices < 1 or max_to_keep < 1:
        raise ValueError(f"cannot cover {num_slices} slices by windows of {max_to_keep}")
    if num_slices <= max_to_keep:
        return [0]
    stride = max(1, max_to_keep // 2)
    last = num_slices - max_to_keep
    return [*range(0, last, stride), last]


def pad(rows: np.ndarray, length: int) -> np.ndarray:
    """Appends zero rows: (n, ...) to (length, ...).

    Raises:
        ValueError: there are more than `length` rows.
    """
    if len(rows) > length:
        raise ValueError(f"{len(rows)} rows do not fit into {length}")
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded


def mask(num_real: int, length: int) -> np.ndarray:
    """uint8 (length,): 1 for each real slice, then 0. `mask(3, 5)` is [1, 1, 1, 0, 0]."""
    return (np.arange(length) < num_real).astype(np.uint8)
