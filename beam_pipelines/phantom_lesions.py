"""Blood where anatomy puts it: planning the lesions of a study and drawing them in a section.

- epidural: a lens between skull and brain;
- intraparenchymal: a lobed ellipsoid inside the brain, with a darker rim of oedema;
- intraventricular: fills the dependent part of the ventricles, or all of a part;
- subarachnoid: replaces the fluid of sulci, fissures and cisterns in a region;
- subdural: a crescent along the inner surface of the skull.
"""

import math
from dataclasses import dataclass

import numpy as np

from beam_pipelines.phantom_head import Head, Image, Point, Section, blend, ramp

# The order of the labels in the data set's CSV; `any` follows as the sixth.
SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")

# Bleeding studies as they come, most frequent first; each entry is what one study has.
_STUDY_MIX: tuple[tuple[str, ...], ...] = (
    ("intraparenchymal", "intraventricular"),
    ("subdural",),
    ("subarachnoid",),
    ("intraparenchymal",),
    ("epidural",),
    ("subdural", "subarachnoid"),
    ("intraventricular", "subarachnoid"),
    ("intraparenchymal",),
    ("subdural",),
    ("epidural", "subarachnoid"),
    ("intraventricular",),
    ("intraparenchymal", "intraventricular"),
    ("intraparenchymal", "subdural"),
    ("intraparenchymal", "intraventricular"),
    ("epidural",),
    ("subarachnoid", "intraventricular"),
)


@dataclass(frozen=True)
class Lesion:
    """One collection of blood in head coordinates.

    Attributes:
        subtype: One of SUBTYPES.
        center: x, y, z in mm; for collections at the skull only its direction from the axis counts.
        extent: Half sizes in mm. Epidural and subdural: along the skull, along z, thickness.
            Intraparenchymal: along x, y, z. Subarachnoid: radius of the region (three times).
            Intraventricular: ignored, level of the blood along y, half height along z.
        hu: Density of the blood, Hounsfield units.
    """

    subtype: str
    center: Point
    extent: Point
    hu: float


def plan_lesions(
    rng: np.random.Generator, heads: list[Head], bleeding_fraction: float
) -> list[tuple[Lesion, ...]]:
    """Decides which studies bleed, and how.

    Shares are dealt out rather than drawn, so that a small archive has every subtype too.

    Args:
        rng: Random numbers that nothing else depends on.
        heads: The head of every study.
        bleeding_fraction: Share of the studies that have a lesion.

    Returns:
        The lesions of every study, in the order of `heads`.
    """
    planned: list[tuple[Lesion, ...]] = [()] * len(heads)
    bleeding = rng.permutation(len(heads))[: round(bleeding_fraction * len(heads))]
    for turn, study in enumerate(bleeding):
        subtypes = _STUDY_MIX[turn % len(_STUDY_MIX)]
        planned[study] = tuple(draw_lesion(rng, subtype, heads[study]) for subtype in subtypes)
    return planned


def draw_lesion(rng: np.random.Generator, subtype: str, head: Head) -> Lesion:
    """Returns a random lesion of a subtype, placed in a head."""
    u = rng.uniform(size=8).tolist()
    # One in seven is older blood, nearly as dark as the brain.
    contrast = 28.0 + 18.0 * u[1] if u[0] < 0.86 else 14.0 + 10.0 * u[1]
    side = 1.0 if u[2] < 0.5 else -1.0
    center, extent = _PLACES[subtype](u[3:], side)
    return Lesion(subtype, center, extent, head.brain_hu + contrast)


def _place_epidural(u: list[float], side: float) -> tuple[Point, Point]:
    angle = 1.8 * (u[0] - 0.5)
    center = (side * 66.0 * math.cos(angle), 82.0 * math.sin(angle), 22.0 + 38.0 * u[1])
    return center, (24.0 + 14.0 * u[2], 18.0 + 14.0 * u[2], 10.0 + 12.0 * u[3])


def _place_subdural(u: list[float], side: float) -> tuple[Point, Point]:
    angle = 1.6 * (u[0] - 0.5)
    center = (side * 66.0 * math.cos(angle), 82.0 * math.sin(angle), 28.0 + 32.0 * u[1])
    return center, (60.0 + 45.0 * u[2], 20.0 + 20.0 * u[2], 5.0 + 9.0 * u[3])


def _place_subarachnoid(u: list[float], side: float) -> tuple[Point, Point]:
    # Sylvian fissure, basal cisterns, and the sulci of the parietal and frontal convexity.
    places = ((36.0, -10.0, 22.0), (6.0, -8.0, 12.0), (45.0, 5.0, 45.0), (35.0, -45.0, 50.0))
    x, y, z = places[int(u[0] * len(places))]
    center = (side * x, y + 20.0 * (u[1] - 0.5), z + 14.0 * (u[2] - 0.5))
    return center, (27.0 + 23.0 * u[3],) * 3


def _place_intraventricular(u: list[float], side: float) -> tuple[Point, Point]:
    return (0.0, 8.0, 26.0 + 18.0 * u[0]), (0.0, 24.0 - 50.0 * u[1], 14.0 + 16.0 * u[2])


def _place_intraparenchymal(u: list[float], side: float) -> tuple[Point, Point]:
    scale = 9.0 + 14.0 * u[0]
    extent = (scale, scale * (0.8 + 0.6 * u[1]), scale * (0.9 + 0.7 * u[2]))
    if u[3] < 0.45:  # deep, in the basal ganglia
        return (side * (22.0 + 8.0 * u[2]), 20.0 * u[4] - 14.0, 28.0 + 8.0 * u[1]), extent
    angle, radius = 2.0 * math.pi * u[4], 0.7 * math.sqrt(0.1 + 1.6 * (u[3] - 0.45))
    center = (radius * 62.0 * math.cos(angle), radius * 78.0 * math.sin(angle), 18.0 + 48.0 * u[2])
    return center, extent


_PLACES = {
    "epidural": _place_epidural,
    "intraparenchymal": _place_intraparenchymal,
    "intraventricular": _place_intraventricular,
    "subarachnoid": _place_subarachnoid,
    "subdural": _place_subdural,
}


def paint(section: Section, lesion: Lesion, head: Head, gain: float) -> Image | None:
    """Draws a lesion into a section.

    Args:
        section: The section; its picture is changed in place.
        lesion: What to draw.
        head: The head of the section.
        gain: Share of the lesion's contrast that shows, 1 for all of it.

    Returns:
        float32 mask of the section's shape, 0 to 1: the lesion's share of every pixel; None where
        the section is out of the lesion's reach.
    """
    reach = 2.0 * max(lesion.extent)
    low, high = section.levels
    if low > lesion.center[2] + reach or high < lesion.center[2] - reach:
        return None
    mask = _MASKS[lesion.subtype](section, lesion, head)
    if lesion.subtype == "intraparenchymal":
        oedema = ramp(1.5 - _ball(section, lesion), 0.5) * section.cavity * (1.0 - mask)
        section.hu -= 7.0 * gain * oedema * (1.0 - section.csf) * (1.0 - section.ventricles)
    tissue = (
        head.csf_hu if lesion.subtype in ("intraventricular", "subarachnoid") else head.brain_hu
    )
    blend(section.hu, mask, tissue + gain * (lesion.hu - tissue) + 1.5 * section.folds)
    return mask


def _ball(section: Section, lesion: Lesion) -> Image:
    """Distance from the centre in units of the half sizes, with a lobed border."""
    (cx, cy, cz), (rx, ry, rz) = lesion.center, lesion.extent
    q = ((section.x - cx) / rx) ** 2 + ((section.y - cy) / ry) ** 2 + ((section.z - cz) / rz) ** 2
    return np.sqrt(q) + 0.13 * section.folds


def _along_skull(section: Section, lesion: Lesion, head: Head) -> Image:
    """Squared distance from the centre along the skull, in units of the half sizes."""
    u = section.x / head.half_width_mm
    v = section.y / head.half_length_mm
    length = np.sqrt(u**2 + v**2) + 1e-3
    cu, cv = lesion.center[0] / head.half_width_mm, lesion.center[1] / head.half_length_mm
    norm = math.hypot(cu, cv) + 1e-3
    chord = np.sqrt((u / length - cu / norm) ** 2 + (v / length - cv / norm) ** 2)
    arc = chord * head.radius_mm / lesion.extent[0]
    return arc**2 + ((section.z - lesion.center[2]) / lesion.extent[1]) ** 2


def _epidural(section: Section, lesion: Lesion, head: Head) -> Image:
    lens = lesion.extent[2] * np.maximum(1.0 - _along_skull(section, lesion, head), 0.0)
    return ramp(lens - section.depth - 0.5) * ramp(lens - 1.0) * section.cavity


def _subdural(section: Section, lesion: Lesion, head: Head) -> Image:
    left = np.maximum(1.0 - _along_skull(section, lesion, head), 0.0)
    crescent = lesion.extent[2] * np.sqrt(left)
    one_side = ramp(math.copysign(1.0, lesion.center[0]) * section.x - 2.0, 2.0)
    blood = ramp(crescent - section.depth - 0.5) * ramp(crescent - 1.0)
    return blood * one_side * section.cavity


def _subarachnoid(section: Section, lesion: Lesion, head: Head) -> Image:
    (cx, cy, cz), (radius, _, _) = lesion.center, lesion.extent
    distance = np.sqrt(
        (section.x - cx) ** 2 + (section.y - cy) ** 2 + (1.3 * (section.z - cz)) ** 2
    )
    return section.csf * ramp(radius - distance, 8.0)


def _intraventricular(section: Section, lesion: Lesion, head: Head) -> Image:
    (_, _, cz), (_, level, half) = lesion.center, lesion.extent
    inside = ramp(half - np.abs(section.z - cz), 3.0) * ramp(section.y - level, 1.5)
    return section.ventricles * inside


def _intraparenchymal(section: Section, lesion: Lesion, head: Head) -> Image:
    border = (1.0 - _ball(section, lesion)) * min(lesion.extent[:2])
    return ramp(border, 1.5) * section.cavity * (1.0 - 0.8 * section.ventricles)


_MASKS = {
    "epidural": _epidural,
    "intraparenchymal": _intraparenchymal,
    "intraventricular": _intraventricular,
    "subarachnoid": _subarachnoid,
    "subdural": _subdural,
}
