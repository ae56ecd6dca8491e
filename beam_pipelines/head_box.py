"""Where the head is: the box around it in a slice, and the square that a series is cropped to."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from beam_pipelines.pixels import Rescale, to_hounsfield

# Skin, fat (-100) and everything denser; foam of head rests and hair lie far below.
_TISSUE_HU = -200
# The search looks at every nth pixel, so that about as many a side are left: 1.9 mm apart.
_SIDE = 128
# Removes what is thinner than three of them (5.6 mm): shells of head rests, tables, sheets.
_OPENING = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
# How often what the opening took of the head itself (rims of ears, tip of the nose) grows back.
_REGROWTHS = 3
# A smaller thing, a disc of 14 mm radius, is none; other slices of a head show more of it.
_SMALLEST_SHARE = 0.01
# Air on every side of the head, as a share of the box's longer side: 6 mm.
_MARGIN = 0.03


class Box(NamedTuple):
    """A part of a slice, in pixels: rows from `top` up to `bottom`, columns `left` to `right`."""

    top: int
    left: int
    bottom: int
    right: int

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """The part of an array (Rows, Columns, ...), contiguous."""
        return np.ascontiguousarray(pixels[self.top : self.bottom, self.left : self.right])


def find_head(stored: np.ndarray, rescale: Rescale) -> Box | None:
    """The box around the head in a slice.

    The largest connected piece of tissue after a small opening, which parts the head from what it
    lies on. Looks at one pixel in 16 of a 512 x 512 slice.

    Args:
        stored: int16 (Rows, Columns), the 16 bits of each pixel.
        rescale: what they mean.

    Returns:
        The box, or None where nothing is as large as a head.
    """
    step = max(1, -(-max(stored.shape) // _SIDE))
    hounsfield = to_hounsfield(np.ascontiguousarray(stored[::step, ::step]), rescale)
    tissue = (hounsfield > _TISSUE_HU).astype(np.uint8)
    opened = cv2.morphologyEx(tissue, cv2.MORPH_OPEN, _OPENING)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(opened)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < _SMALLEST_SHARE * tissue.size:
        return None
    head = (pieces == largest).astype(np.uint8)
    for _ in range(_REGROWTHS):
        head = cv2.dilate(head, _OPENING) & tissue
    left, top, width, height = cv2.boundingRect(head)
    return _between_samples(Box(top, left, top + height, left + width), step, stored.shape)


def _between_samples(box: Box, step: int, shape: tuple[int, ...]) -> Box:
    """A box of every `step`th pixel as one of all: up to the next pixel that was looked at."""
    top, left = (max(0, (start - 1) * step) for start in box[:2])
    bottom, right = (min(end * step + 1, size) for end, size in zip(box[2:], shape, strict=True))
    return Box(top, left, bottom, right)


def crop_box(heads: Sequence[Box | None], shapes: set[tuple[int, ...]]) -> Box | None:
    """The part of every slice of a series that is kept: one for all, so that slices stay aligned.

    A square around the heads of all slices with a margin. Where it would leave the slice it moves
    inwards; a slice that is not square may be too narrow for it, then the box is the whole of that
    side and shorter than the other.

    Args:
        heads: the box around the head of each slice, None where there is none.
        shapes: Rows and Columns that the slices have.

    Returns:
        The box, or None, for no crop: no slice shows a head, or the slices' sizes differ, so that
        no box means the same in all of them.
    """
    found = [head for head in heads if head is not None]
    if not found or len(shapes) != 1:
        return None
    (shape,) = shapes
    starts, ends = np.min([f[:2] for f in found], axis=0), np.max([f[2:] for f in found], axis=0)
    longest = int((ends - starts).max())
    side = min(longest + 2 * round(_MARGIN * longest), max(shape))
    top, bottom = _place(int(starts[0]), int(ends[0]), side, shape[0])
    left, right = _place(int(starts[1]), int(ends[1]), side, shape[1])
    return Box(top, left, bottom, right)


def _place(start: int, end: int, side: int, size: int) -> tuple[int, int]:
    """Puts `side` pixels around the middle of `start` to `end`, inside of 0 to `size`."""
    side = min(side, size)
    first = min(max((start + end - side) // 2, 0), size - side)
    return first, first + side
