"""Heads, planes through them, and the masks that anatomy is drawn with.

Everything is a formula of head coordinates in millimetres, so any section of any head can be
drawn alone and sections of one head agree with each other: x to the patient's left (right in the
picture), y to the back (down), z to the vertex; the origin lies between the ears, on the plane of
the orbits and the ear canals. The brain cavity reaches from about z = -40 (foramen magnum) to the
head's `height_mm`.

Irregular things (sulci, folia, air cells, muscle) are level sets of one periodic random texture
which is the same for all heads; a head takes its own place in it.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.floating[Any]]  # float32 of shape (rows, columns)
Point = tuple[float, float, float]

AIR_HU = -1000.0

_TEXTURE_SIZE = 96
_TEXTURE_STEP_MM = 2.0


@dataclass(frozen=True)
class Head:
    """What makes one head differ from another; lengths in mm, densities in Hounsfield units."""

    half_width_mm: float
    half_length_mm: float
    height_mm: float
    skull_mm: float
    scalp_mm: float
    center_mm: tuple[float, float]
    rotation_rad: float
    pitch: float  # rise of z per mm of y: the head nods against the section
    roll: float  # rise of z per mm of x
    lean: float  # drift of the head's centre along y per mm of z
    brain_hu: float  # white matter
    contrast_hu: float  # grey above white matter
    csf_hu: float
    skull_hu: float
    atrophy: float  # 0 (young) to 1: wider sulci and ventricles
    texture_mm: Point
    calcifications: tuple[tuple[Point, float, float], ...]  # centre, radius, HU
    frontal_sinus: float  # 0 to 1

    @property
    def radius_mm(self) -> float:
        """Mean radius of the brain cavity in the plane of the ears."""
        return 0.5 * (self.half_width_mm + self.half_length_mm)


@dataclass(frozen=True)
class Plane:
    """Where the pixels of a picture are; lengths in mm from the middle of the field of view.

    Attributes:
        rows: Rows.
        columns: Columns.
        step_mm: Distance between neighbouring pixels.
        left_mm: Where the first column is.
        top_mm: Where the first row is.
        level_mm: Head coordinate z of the plane on the head's axis.
    """

    rows: int
    columns: int
    step_mm: float
    left_mm: float
    top_mm: float
    level_mm: float


@dataclass
class Section:
    """One plane through a head. Arrays are float32 of shape (rows, columns); masks are in [0, 1].

    Attributes:
        hu: Hounsfield units, without noise.
        x: Head coordinate to the patient's left, mm.
        y: Head coordinate to the back, mm.
        z: Head coordinate to the vertex, mm; not constant when the head nods.
        depth: Distance inwards from the inner skull surface, mm; negative in bone and scalp.
        above: Height above the base of the skull, mm; negative in the face.
        cavity: Where the brain cavity is.
        csf: Fluid in sulci, fissures and cisterns.
        ventricles: Fluid in the ventricles.
        folds: The random texture at this plane, mean 0 and standard deviation 1.
        levels: Smallest and largest z, mm.
    """

    hu: Image
    x: Image
    y: Image
    z: Image
    depth: Image
    above: Image
    cavity: Image
    csf: Image
    ventricles: Image
    folds: Image
    levels: tuple[float, float]


def draw_head(rng: np.random.Generator) -> Head:
    """Returns a random head. Always makes the same number of draws."""
    u = rng.uniform(size=34).tolist()
    size = 0.93 + 0.14 * u[0]
    side = 1.0 if u[2] < 0.5 else -1.0
    calcium_hu = 90.0 + 160.0 * u[3]
    # Chance, centre and radius of the usual calcifications.
    spots: tuple[tuple[float, Point, float], ...] = (
        (0.4, (0.0, 24.0, 27.0), 2.0 + 1.2 * u[4]),  # pineal gland
        (0.4, (21.0, 31.0, 37.0), 2.2 + 1.8 * u[5]),  # choroid plexus, each side
        (0.4, (-21.0, 31.0, 37.0), 2.2 + 1.8 * u[6]),
        (0.15, (side * 19.0, -8.0, 27.0), 2.0 + 1.5 * u[7]),  # globus pallidus
        (0.25, (0.8, -45.0 + 20.0 * u[8], 62.0), 1.8 + 1.5 * u[9]),  # falx
    )
    return Head(
        half_width_mm=66.0 * size * (0.96 + 0.08 * u[10]),
        half_length_mm=82.0 * size * (0.96 + 0.08 * u[11]),
        height_mm=94.0 * size,
        skull_mm=5.0 + 3.5 * u[12],
        scalp_mm=4.0 + 4.0 * u[13],
        center_mm=(16.0 * u[14] - 8.0, 16.0 * u[15] - 8.0),
        rotation_rad=math.radians(26.0 * (u[16] + u[17] - 1.0)),
        pitch=0.24 * u[18] - 0.12,
        roll=0.1 * u[19] - 0.05,
        lean=0.24 * u[20] - 0.08,
        brain_hu=24.0 + 6.0 * u[21],
        contrast_hu=5.0 + 4.0 * u[22],
        csf_hu=4.0 + 6.0 * u[23],
        skull_hu=1150.0 + 600.0 * u[24],
        atrophy=u[1] ** 1.5,
        texture_mm=(192.0 * u[25], 192.0 * u[26], 192.0 * u[27]),
        calcifications=tuple(
            (center, radius, calcium_hu)
            for (chance, center, radius), v in zip(spots, u[29:], strict=True)
            if v < chance
        ),
        frontal_sinus=u[28],
    )


def ramp(distance: Image, width: float = 1.0) -> Image:
    """Returns a mask which rises from 0 to 1 over `width` mm around distance 0."""
    mask = distance * np.float32(1.0 / width)
    mask += 0.5
    return np.clip(mask, 0.0, 1.0, out=mask)


def blend(hu: Image, mask: Image, value: float | Image) -> None:
    """Moves a picture towards a value where the mask says so, in place."""
    hu += mask * (value - hu)


def pair_of_balls(
    section: Section, center: Point, radii: Point, slope: float = 0.0
) -> Image | None:
    """Returns a mask of an ellipsoid and its mirror image on the head's other side.

    Args:
        section: Where.
        center: Centre in head coordinates, mm, on the patient's left.
        radii: Half axes along x, y and z, mm.
        slope: How far the centre moves outwards per mm towards the back.

    Returns:
        The mask, or None where the section meets neither.
    """
    (cx, cy, cz), (rx, ry, rz) = center, radii
    if section.levels[0] > cz + rz or section.levels[1] < cz - rz:
        return None
    back = section.y - cy
    q = ((np.abs(section.x) - cx - slope * back) / rx) ** 2
    q += (back / ry) ** 2
    q += ((section.z - cz) / rz) ** 2
    return ramp(1.0 - q, 2.0 / min(rx, ry))


def coordinates(head: Head, plane: Plane) -> tuple[Image, Image, Image]:
    """Returns head coordinates x and y in mm and the texture of a plane."""
    cos, sin = math.cos(head.rotation_rad), math.sin(head.rotation_rad)
    shift = head.center_mm[1] + head.lean * (plane.level_mm - 30.0)
    column = np.arange(plane.columns, dtype=np.float32) * plane.step_mm
    column += plane.left_mm - head.center_mm[0]
    row = np.arange(plane.rows, dtype=np.float32)[:, None] * plane.step_mm
    row += plane.top_mm - shift
    x, y = cos * column + sin * row, cos * row - sin * column
    step = plane.step_mm / _TEXTURE_STEP_MM
    start = [
        (float(v[0, 0]) + t) / _TEXTURE_STEP_MM
        for v, t in zip((x, y), head.texture_mm[:2], strict=True)
    ]
    to_voxel = np.array([[cos * step, sin * step, start[0]], [-sin * step, cos * step, start[1]]])
    folds = cv2.warpAffine(
        _texture_plane((plane.level_mm + head.texture_mm[2]) / _TEXTURE_STEP_MM),
        to_voxel,
        (plane.columns, plane.rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    return x, y, folds


def _texture_plane(level: float) -> Image:
    """Returns the texture between two of its planes, float32 of shape (96, 96)."""
    below = math.floor(level)
    part = level - below
    lower, upper = (_texture()[k % _TEXTURE_SIZE] for k in (below, below + 1))
    # Neighbouring planes correlate by 0.8; without this the mean of two would be flatter.
    return ((1.0 - part) * lower + part * upper) / math.sqrt(1.0 - 0.4 * part * (1.0 - part))


@functools.lru_cache(maxsize=1)
def _texture() -> Image:
    """A periodic random field of shape (96, 96, 96) at 2 mm, waves of about 22 mm."""
    white = np.random.default_rng(2019).standard_normal((_TEXTURE_SIZE,) * 3)
    full = np.fft.fftfreq(_TEXTURE_SIZE, _TEXTURE_STEP_MM)
    half = np.fft.rfftfreq(_TEXTURE_SIZE, _TEXTURE_STEP_MM)
    wave = np.sqrt(full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2)
    band = np.exp(-0.5 * ((wave - 0.045) / 0.016) ** 2)
    field = np.fft.irfftn(np.fft.rfftn(white) * band, s=white.shape, axes=(0, 1, 2))
    return (field / field.std()).astype(np.float32)
