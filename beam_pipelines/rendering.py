"""Stored pixels to square images of one size whose channels are CT windows."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beam_pipelines import images
from beam_pipelines.head_box import Box
from beam_pipelines.pixels import Rescale
from beam_pipelines.windowing import apply_table, grey_table
from configs import Window

# Archives hold a handful of rescales; a hostile one may hold a new one in every file.
_TABLES_KEPT = 32


@dataclass(frozen=True)
class _Tables:
    """What every stored value looks like.

    Attributes:
        grey: uint8 (65536, 3).
        packed: uint64 (65536,), the same in one word.
    """

    grey: np.ndarray
    packed: np.ndarray


class Renderer:
    """Crops, windows, pads to a square and resizes; safe to share between threads.

    Windows come before the resize: the other order is faster, but mixes bone and brain at every
    edge (2% of the pixels differ by more than 8 grey levels).
    """

    def __init__(self, windows: Sequence[Window], image_size: int) -> None:
        # Numba takes 0.3 s to import, which `--help` need not wait for.
        from beam_pipelines import area_resize

        self._area_resize = area_resize
        self._windows = tuple(windows)
        self._image_size = image_size
        self._tables = functools.lru_cache(_TABLES_KEPT)(self._make_tables)

    def __call__(self, stored: np.ndarray, rescale: Rescale, box: Box | None = None) -> np.ndarray:
        """Renders a slice.

        Args:
            stored: int16 (Rows, Columns), the 16 bits of each pixel.
            rescale: what they mean.
            box: the part to render, None for all.

        Returns:
            uint8 (image_size, image_size, 3).
        """
        tables = self._tables(rescale)
        if box is not None:
            stored = box.of(stored)
        if self._area_resize.can_shrink(stored.shape, self._image_size):
            return self._area_resize.shrink(stored, tables.packed, self._image_size)
        windowed = apply_table(stored, tables.grey)
        return images.resize(images.to_square(windowed), self._image_size)

    def _make_tables(self, rescale: Rescale) -> _Tables:
        grey = grey_table(rescale, self._windows)
        return _Tables(grey, self._area_resize.pack(grey))
