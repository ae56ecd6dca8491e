"""Slices of head phantoms as a scanner would give them: thick, noisy, with artefacts, and labelled.

A slice is the mean of a few thin sections of a head (so that bone and blood fade where they end
between two slices), then smooth shading, streaks, noise, the head rest and the edge of the field
of view are added. One slice alone is often ambiguous, as it is in reality, and its neighbours
settle it:

- look-alikes: about one slice in twelve shows something like blood which its neighbours do not
  have; it is no lesion and is not labelled;
- the contrast of the lesions jitters from slice to slice, and fades at a lesion's ends.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from beam_pipelines.phantom_anatomy import (
    AIR_HU,
    Head,
    Image,
    Section,
    blend,
    draw_section,
    ramp,
)
from beam_pipelines.phantom_lesions import SUBTYPES, Lesion, draw_lesion, paint

# A slice is positive for a subtype when its lesions cover at least this much of the slice, where a
# pixel (or a part of the slice's thickness) covered in part counts in part.
MIN_LESION_AREA_MM2 = 60.0

OUTSIDE_HU = -3000.0  # marks pixels outside the round field of view

_LOOK_ALIKE_CHANCE = 0.08
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
    gains = 1.0 - 0.55 * rng.uniform(size=len(SUBTYPES)) ** 2
    look_alike, look_alike_gain = _draw_look_alike(head, level_mm, rng)
    shape = (-(-scan.rows // _PIXELS_A_STEP), -(-scan.columns // _PIXELS_A_STEP))
    step_mm = scan.pixel_spacing * _PIXELS_A_STEP
    hu = np.zeros(shape, np.float32)
    areas = dict.fromkeys(SUBTYPES, 0.0)
    for part in range(_SECTIONS):
        offset = ((part + 0.5) / _SECTIONS - 0.5) * scan.thickness_mm
        section = draw_section(head, shape, step_mm, level_mm + offset)
        if look_alike is not None:
            paint(section, look_alike, head, look_alike_gain)
        covered: dict[str, Image] = {}
        for lesion in lesions:
            mask = paint(section, lesion, head, gains[SUBTYPES.index(lesion.subtype)])
            known = covered.get(lesion.subtype)
            covered[lesion.subtype] = mask if known is None else np.maximum(known, mask)
        for subtype, mask in covered.items():
            areas[subtype] += float(mask.sum()) * step_mm**2 / _SECTIONS
        hu += section.hu / _SECTIONS
    _add_shading_and_streaks(hu, section, scan, level_mm, rng)
    full = cv2.resize(hu, (scan.columns, scan.rows), interpolation=cv2.INTER_LINEAR)
    full += _noise(scan, rng)
    np.maximum(full, AIR_HU - 24.0, out=full)
    if scan.round_view:
        _mark_outside(full)
    return full, areas


def labels_of(areas: dict[str, float]) -> tuple[int, ...]:
    """Returns six labels in the data set's order: the five SUBTYPES, then `any`."""
    labels = [int(areas[subtype] >= MIN_LESION_AREA_MM2) for subtype in SUBTYPES]
    return (*labels, max(labels))


def _draw_look_alike(
    head: Head, level_mm: float, rng: np.random.Generator
) -> tuple[Lesion | None, float]:
    """Returns something like a lesion for this slice alone, or None, and its gain."""
    chance, gain = rng.uniform(size=2)
    # An own generator, since lesions differ in how many numbers they draw.
    own = np.random.default_rng(rng.integers(2**63))
    lesion = draw_lesion(own, SUBTYPES[int(own.integers(len(SUBTYPES)))], head)
    if chance >= _LOOK_ALIKE_CHANCE or not -30.0 < level_mm < 0.9 * head.height_mm:
        return None, 0.0
    center = (lesion.center[0], lesion.center[1], level_mm)
    return Lesion(lesion.subtype, center, lesion.extent, lesion.hu), 0.6 + 0.4 * float(gain)


def _add_shading_and_streaks(
    hu: Image, section: Section, scan: Scan, level_mm: float, rng: np.random.Generator
) -> None:
    """Adds what differs from slice to slice and is smooth: calibration, beam hardening."""
    coarse = rng.standard_normal((12, 12)).astype(np.float32)
    offset, angle, shift, strength = rng.standard_normal(4)
    smooth = cv2.resize(coarse, (hu.shape[1], hu.shape[0]), interpolation=cv2.INTER_CUBIC)
    head = ramp(section.depth + 3.0)
    hu += head * (scan.shading_hu * smooth + 1.5 * float(offset))
    # Thick bone of the skull base darkens and brightens bands between the petrous ridges.
    near_base = max(0.0, 1.0 - abs(level_mm + 2.0) / 16.0)
    across = np.cos(0.3 * float(angle)) * section.y + np.sin(0.3 * float(angle)) * section.x
    band = np.cos((across - 10.0 * float(shift)) / 6.0) * np.exp(-(((across - 15.0) / 25.0) ** 2))
    hu += head * (near_base * 7.0 * float(strength)) * band.astype(np.float32)
    # The head rest.
    rows, columns = hu.shape
    step = scan.pixel_spacing * _PIXELS_A_STEP
    v = (np.arange(rows, dtype=np.float32)[:, None] - 0.5 * rows) * step
    u = (np.arange(columns, dtype=np.float32)[None, :] - 0.5 * columns) * step
    rest = ramp(1.2 - np.abs(np.sqrt(u**2 + (v - 6.0) ** 2) - 112.0)) * ramp(v - 45.0)
    blend(hu, rest * ramp(-section.depth - 25.0), 90.0)


def _noise(scan: Scan, rng: np.random.Generator) -> Image:
    white = rng.standard_normal((scan.rows, scan.columns), dtype=np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), scan.blur_px)
    # Blurring white noise by a Gaussian leaves 1 / (2 sqrt(pi) sigma) of its deviation.
    smooth *= scan.noise_hu * 2.0 * np.sqrt(np.pi) * scan.blur_px
    return smooth


def _mark_outside(hu: Image) -> None:
    rows, columns = hu.shape
    v = np.arange(rows, dtype=np.float32)[:, None] - 0.5 * (rows - 1)
    u = np.arange(columns, dtype=np.float32)[None, :] - 0.5 * (columns - 1)
    hu[u**2 + v**2 > (0.5 * min(rows, columns)) ** 2] = OUTSIDE_HU
