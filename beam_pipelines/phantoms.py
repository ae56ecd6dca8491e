"""Slices of head phantoms as a scanner would give them: thick, noisy, with artefacts, and labelled.

A slice is the mean of a few thin sections of a head (so that bone and blood fade where they end
between two slices), then smooth shading, streaks, noise, the head rest and the edge of the field
of view are added. One slice alone is often ambiguous, as it is in reality, and its neighbours
settle it:

- look-alikes: about one slice in sixteen shows something like blood which its neighbours do not
  have; it is no lesion and is not labelled;
- the contrast of the lesions jitters from slice to slice, and fades at a lesion's ends.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from beam_pipelines.phantom_anatomy import draw_section, head_box
from beam_pipelines.phantom_head import AIR_HU, Head, Image, Plane, Section, blend, ramp
from beam_pipelines.phantom_lesions import SUBTYPES, Lesion, draw_lesion, paint

# A slice is positive for a subtype when its lesions cover at least this much of the slice, where a
# pixel (or a part of the slice's thickness) covered in part counts in part.
MIN_LESION_AREA_MM2 = 60.0

OUTSIDE_HU = -3000.0  # marks pixels outside the round field of view

_LOOK_ALIKE_CHANCE = 0.07
_OFFSET_HU = 1.5  # deviation of a slice's mean, from slice to slice
_HEAD_REST_HU = 90.0
_SECTIONS = 2  # thin sections averaged into one slice
_PIXELS_A_STEP = 2  # anatomy is drawn on every second pixel


@dataclass(frozen=True)
class Scan:
    """How a series was acquired.

    Attributes:
        rows: Rows of the matrix.
        columns: Columns of the matrix.
        pixel_spacing: Distance between pixels, mm.
        thickness_mm: Thickness of a slice.
        noise_hu: Standard deviation of the noise in a pixel.
        shading_hu: Standard deviation of the smooth error that differs from slice to slice.
        blur_px: Standard deviation of the reconstruction kernel, pixels.
        round_view: Whether the field of view is the inscribed circle.
    """

    rows: int
    columns: int
    pixel_spacing: float
    thickness_mm: float
    noise_hu: float
    shading_hu: float
    blur_px: float
    round_view: bool


def render_slice(
    head: Head,
    scan: Scan,
    lesions: tuple[Lesion, ...],
    level_mm: float,
    rng: np.random.Generator,
) -> tuple[Image, dict[str, float]]:
    """Draws one slice.

    The numbers drawn from `rng` do not depend on the lesions, so two slices that differ in their
    lesions only have the same noise.

    Args:
        head: The head.
        scan: How the series was acquired.
        lesions: The lesions of the study.
        level_mm: Head coordinate z of the slice's middle.
        rng: Random numbers of this slice.

    Returns:
        Hounsfield units, float32 of shape (rows, columns), OUTSIDE_HU outside the field of view;
        and the area in mm^2 that the lesions of each subtype cover.
    """
    gains = (1.0 - 0.55 * rng.uniform(size=len(SUBTYPES)) ** 2).tolist()
    painted = [(lesion, gains[SUBTYPES.index(lesion.subtype)], True) for lesion in lesions]
    painted += [(lesion, gain, False) for lesion, gain in _draw_look_alike(head, level_mm, rng)]
    shading = _draw_shading(scan, rng)
    streak = _draw_streak(level_mm, rng)
    noise = _draw_noise(scan, rng)
    areas = dict.fromkeys(SUBTYPES, 0.0)
    hu = np.full(shading.shape, AIR_HU, np.float32)
    window = _head_window(head, scan, level_mm)
    if window is not None:
        thin = [
            _draw_thin(head, _plane(scan, window, level_mm + offset), painted, areas)
            for offset in _offsets(scan)
        ]
        part = sum(section.hu for section in thin) / np.float32(len(thin))
        inside = ramp(thin[0].depth + 3.0)
        part += inside * (shading[window] + _streak_picture(thin[0], streak))
        hu[window] = part
    _draw_head_rest(hu, scan)
    full = cv2.resize(hu, (scan.columns, scan.rows), interpolation=cv2.INTER_LINEAR)
    full = np.maximum(full + noise, AIR_HU - 24.0)
    if scan.round_view:
        _mark_outside(full)
    return full, areas


def labels_of(areas: dict[str, float]) -> tuple[int, ...]:
    """Returns six labels in the data set's order: the five SUBTYPES, then `any`."""
    labels = [int(areas[subtype] >= MIN_LESION_AREA_MM2) for subtype in SUBTYPES]
    return (*labels, max(labels))


def _offsets(scan: Scan) -> list[float]:
    return [((k + 0.5) / _SECTIONS - 0.5) * scan.thickness_mm for k in range(_SECTIONS)]


def _draw_thin(
    head: Head, plane: Plane, painted: list[tuple[Lesion, float, bool]], areas: dict[str, float]
) -> Section:
    """Draws a thin section with lesions, and adds what those that count cover to `areas`."""
    section = draw_section(head, plane)
    for lesion, gain, counts in painted:
        mask = paint(section, lesion, head, gain)
        if counts and mask is not None:
            areas[lesion.subtype] += float(mask.sum()) * plane.step_mm**2 / _SECTIONS
    return section


def _draw_look_alike(
    head: Head, level_mm: float, rng: np.random.Generator
) -> list[tuple[Lesion, float]]:
    """Returns at most one thing like a lesion for this slice alone, with its gain."""
    chance, gain, kind = rng.uniform(size=3).tolist()
    lesion = draw_lesion(rng, SUBTYPES[int(kind * len(SUBTYPES))], head)
    if chance >= _LOOK_ALIKE_CHANCE or not -30.0 < level_mm < 0.9 * head.height_mm:
        return []
    center = (lesion.center[0], lesion.center[1], level_mm)
    return [(replace(lesion, center=center), 0.6 + 0.4 * gain)]


def _draw_shading(scan: Scan, rng: np.random.Generator) -> Image:
    """Smooth error of one slice: calibration and scatter, shape of the anatomy's grid."""
    coarse = scan.shading_hu * rng.standard_normal((12, 12), dtype=np.float32)
    coarse += np.float32(_OFFSET_HU * rng.standard_normal())
    rows, columns = _grid(scan)
    return cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)


def _draw_streak(level_mm: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Angle, shift in mm and strength in HU of the streaks between the petrous bones."""
    angle, shift, strength = rng.standard_normal(3).tolist()
    near_base = max(0.0, 1.0 - abs(level_mm + 2.0) / 16.0)
    return 0.3 * angle, 10.0 * shift, 7.0 * strength * near_base


def _streak_picture(section: Section, streak: tuple[float, float, float]) -> Image | float:
    angle, shift, strength = streak
    if strength == 0.0:
        return 0.0
    across = math.cos(angle) * section.y + math.sin(angle) * section.x
    return strength * np.cos((across - shift) / 6.0) * np.exp(-(((across - 15.0) / 25.0) ** 2))


def _draw_noise(scan: Scan, rng: np.random.Generator) -> Image:
    white = rng.standard_normal((scan.rows, scan.columns), dtype=np.float32)
    smooth = cv2.GaussianBlur(white, (5, 5), scan.blur_px)
    # Blurring white noise by a Gaussian leaves 1 / (2 sqrt(pi) sigma) of its deviation.
    smooth *= np.float32(scan.noise_hu * 2.0 * math.sqrt(math.pi) * scan.blur_px)
    return smooth


def _grid(scan: Scan) -> tuple[int, int]:
    """Rows and columns of the grid that the anatomy is drawn on."""
    return -(-scan.rows // _PIXELS_A_STEP), -(-scan.columns // _PIXELS_A_STEP)


def _head_window(head: Head, scan: Scan, level_mm: float) -> tuple[slice, slice] | None:
    """Returns the part of the grid that the head is in, rows and columns, or None for air."""
    box = head_box(head, level_mm)
    if box is None:
        return None
    rows, columns = _grid(scan)
    step = scan.pixel_spacing * _PIXELS_A_STEP
    left, right = (int(v / step + 0.5 * columns) for v in (box[0], box[2]))
    top, bottom = (int(v / step + 0.5 * rows) for v in (box[1], box[3]))
    across = slice(max(left, 0), min(right + 1, columns))
    down = slice(max(top, 0), min(bottom + 1, rows))
    return (down, across) if down.start < down.stop and across.start < across.stop else None


def _plane(scan: Scan, window: tuple[slice, slice], level_mm: float) -> Plane:
    rows, columns = _grid(scan)
    step = scan.pixel_spacing * _PIXELS_A_STEP
    down, across = window
    return Plane(
        rows=down.stop - down.start,
        columns=across.stop - across.start,
        step_mm=step,
        left_mm=(across.start - 0.5 * (columns - 1)) * step,
        top_mm=(down.start - 0.5 * (rows - 1)) * step,
        level_mm=level_mm,
    )


def _draw_head_rest(hu: Image, scan: Scan) -> None:
    rows, columns = hu.shape
    step = scan.pixel_spacing * _PIXELS_A_STEP
    v = (np.arange(rows, dtype=np.float32)[:, None] - 0.5 * rows) * step
    u = (np.arange(columns, dtype=np.float32)[None, :] - 0.5 * columns) * step
    low = slice(int(rows / 2 + 45.0 / step), rows)  # the upper part carries no rest
    ring = ramp(1.2 - np.abs(np.sqrt(u**2 + (v[low] - 6.0) ** 2) - 112.0))
    blend(hu[low], ring * (hu[low] < 0.9 * AIR_HU), _HEAD_REST_HU)


def _mark_outside(hu: Image) -> None:
    rows, columns = hu.shape
    v = np.arange(rows, dtype=np.float32)[:, None] - 0.5 * (rows - 1)
    u = np.arange(columns, dtype=np.float32)[None, :] - 0.5 * (columns - 1)
    hu[u**2 + v**2 > (0.5 * min(rows, columns)) ** 2] = OUTSIDE_HU
