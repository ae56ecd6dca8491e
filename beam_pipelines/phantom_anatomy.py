"""A simplified head in Hounsfield units, one section at a time: scalp, skull, face, then brain."""

import math

import numpy as np

from beam_pipelines.phantom_brain import draw_brain
from beam_pipelines.phantom_head import (
    AIR_HU,
    Head,
    Image,
    Plane,
    Section,
    blend,
    coordinates,
    pair_of_balls,
    ramp,
)

FAT_HU = -90.0
MUSCLE_HU = 52.0
SKIN_HU = 45.0

# The skin lies at most this far from the axis, in units of the brain cavity's radius.
_REACH = 1.24


def head_box(head: Head, level_mm: float) -> tuple[float, float, float, float] | None:
    """Returns left, top, right and bottom of the head in mm, or None above the vertex.

    Args:
        head: The head.
        level_mm: Head coordinate z on the head's axis.

    Returns:
        A box around the skin, in mm from the middle of the field of view.
    """
    lowest = level_mm - 100.0 * (abs(head.pitch) + 0.7 * abs(head.roll))
    share = _REACH**2 - max(lowest / head.height_mm, 0.0) ** 3
    if share <= 0.0:
        return None
    across = 1.08 * head.half_width_mm * math.sqrt(share)
    along = head.half_length_mm * math.sqrt(share)
    cos, sin = math.cos(head.rotation_rad), math.sin(head.rotation_rad)
    half_width = math.hypot(across * cos, along * sin)
    half_height = math.hypot(along * cos, across * sin)
    x, y = head.center_mm[0], head.center_mm[1] + head.lean * (level_mm - 30.0)
    return x - half_width, y - half_height, x + half_width, y + half_height


def draw_section(head: Head, plane: Plane) -> Section:
    """Returns a section with a clean picture that lesions and noise can be added to."""
    x, y, folds = coordinates(head, plane)
    z = plane.level_mm + head.pitch * y + head.roll * x
    egg = x / (head.half_width_mm * (1.0 + 0.12 * y / head.half_length_mm))
    up = np.maximum(z, 0.0) / head.height_mm
    down = np.minimum(z, 0.0) / 150.0
    radius = np.sqrt(egg**2 + (y / head.half_length_mm) ** 2 + up * up * up + down**2)
    depth = (1.0 - radius) * head.radius_mm
    levels = (float(z.min()), float(z.max()))
    above = z - _base_of_skull(x, y) if levels[0] < 30.0 else z
    section = Section(
        hu=np.full_like(x, AIR_HU),
        x=x,
        y=y,
        z=z,
        depth=depth,
        above=above,
        cavity=ramp(depth) * ramp(above),
        csf=np.zeros_like(x),
        ventricles=np.zeros_like(x),
        folds=folds,
        levels=levels,
    )
    _draw_scalp_and_skull(head, section)
    if levels[0] < 34.0:
        _draw_face_and_base(head, section)
    draw_brain(head, section)
    return section


def _base_of_skull(x: Image, y: Image) -> Image:
    """Returns the height of the floor of the brain cavity, mm, with its three steps.

    From front to back: the anterior fossa above the orbits, the middle fossa with the saddle in
    the midline, the petrous ridges, and the posterior fossa around the foramen magnum.
    """
    side = np.abs(x)
    ridge = y - (6.0 + 0.45 * side)
    front = ramp(-26.0 - y, 8.0)
    back = ramp(ridge, 8.0)
    lateral = ramp(side - 16.0, 8.0)
    middle = -3.0 - 14.0 * lateral
    posterior = -44.0 + 0.008 * (side**2 + (y - 42.0) ** 2)
    orbit_roof = np.maximum(14.0 - 0.016 * (side - 30.0) ** 2, 3.0)
    floor = front * orbit_roof + back * posterior + (1.0 - front - back) * middle
    floor += lateral * (15.0 * np.maximum(1.0 - (ridge / 9.0) ** 2, 0.0))  # petrous ridge
    sphenoid_wing = np.maximum(1.0 - ((y + 26.0 + 0.1 * side) / 6.0) ** 2, 0.0)
    floor += lateral * (6.0 * sphenoid_wing)
    return floor


def _draw_scalp_and_skull(head: Head, section: Section) -> None:
    hu, depth = section.hu, section.depth
    skull = head.skull_mm + 0.7 * section.folds
    outside = depth + skull + head.scalp_mm
    blend(hu, ramp(outside), SKIN_HU)
    blend(hu, ramp(outside - 2.0), FAT_HU)
    if section.levels[0] < 48.0:
        temporal = ramp(np.abs(section.x) - 42.0, 10.0) * ramp(40.0 - section.z, 15.0)
        temporal *= ramp(28.0 - np.abs(section.y + 15.0), 15.0)
        blend(hu, ramp(outside - 3.5) * temporal, MUSCLE_HU)
    spongy = np.maximum(1.0 - (2.0 * depth / skull + 1.0) ** 2, 0.0)  # between the two tables
    blend(hu, ramp(depth + skull), head.skull_hu * (1.0 - 0.45 * spongy))


def _draw_face_and_base(head: Head, section: Section) -> None:
    """Draws what lies under the brain cavity: bone, air cells, orbits, sinuses, neck."""
    hu, folds = section.hu, section.folds
    below = ramp(section.depth + head.skull_mm) * ramp(-section.above - 4.5 + folds)
    blend(hu, below, FAT_HU)
    blend(hu, below * ramp(folds + 0.7, 1.0), MUSCLE_HU)
    everywhere = np.ones_like(hu)
    cells = ramp(np.abs(folds) - 0.35, 0.3)
    front, bone = -head.half_length_mm, 0.75 * head.skull_hu
    # Centre, half axes, density, and what part of the ellipsoid.
    for center, radii, density, part in (
        ((0.0, front + 32, -24.0), (44.0, 32.0, 26.0), 0.2 * bone, everywhere),  # face
        ((31.0, front + 18, -2.0), (17.0, 24.0, 16.0), FAT_HU, everywhere),  # orbit
        ((31.0, front + 12, -2.0), (12.0, 12.0, 12.0), 35.0, everywhere),  # eye
        ((31.0, front + 12, -2.0), (10.0, 10.0, 10.0), 12.0, everywhere),
        ((28.0, front + 24, -32.0), (14.0, 15.0, 15.0), AIR_HU, everywhere),  # maxillary sinus
        ((0.0, front + 22, -14.0), (13.0, 26.0, 30.0), AIR_HU, cells),  # nose, ethmoid cells
        ((0.0, 10.0, -18.0), (12.0, 9.0, 16.0), bone, everywhere),  # clivus
        ((46.0, 22.0, -14.0), (17.0, 17.0, 20.0), bone, everywhere),  # mastoid
        ((48.0, 26.0, -14.0), (12.0, 12.0, 16.0), -650.0, ramp(folds - 0.1, 0.4)),  # its air
        ((0.0, 36.0, -62.0), (26.0, 24.0, 18.0), bone, everywhere),  # first vertebra
        ((0.0, 36.0, -60.0), (14.0, 13.0, 32.0), head.csf_hu, everywhere),  # spinal canal
        ((0.0, 36.0, -60.0), (7.0, 6.0, 40.0), head.brain_hu + 3.0, everywhere),  # spinal cord
    ):
        mask = pair_of_balls(section, center, radii)
        if mask is not None:
            blend(hu, below * mask * part, density)
    sinus = pair_of_balls(
        section, (0.0, front - 1.0, 20.0), (8.0 + 18.0 * head.frontal_sinus, 4.0, 14.0)
    )
    if sinus is not None:
        blend(hu, sinus, AIR_HU)
