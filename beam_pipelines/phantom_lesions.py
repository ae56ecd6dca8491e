"""Blood where anatomy puts it: planning the lesions of a study and drawing them in a section.

- epidural: a lens between skull and brain;
- intraparenchymal: a lobed ellipsoid inside the brain, with a darker rim of oedema;
- intraventricular: fills the dependent part of the ventricles, or all of a part;
- subarachnoid: replaces the fluid of sulci, fissures and cisterns in a region;
- subdural: a crescent along the inner surface of the skull.
"""

from dataclasses import dataclass, field

import numpy as np

from beam_pipelines.phantom_anatomy import Head, Image, Section, blend, ramp

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
    ("subarachnoid",),
    ("intraparenchymal", "subdural"),
    ("intraparenchymal", "intraventricular"),
    ("epidural",),
    ("subdural", "intraventricular"),
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
    center: tuple[float, float, float]
    extent: tuple[float, float, float]
    hu: float


@dataclass
class Coverage:
    """Which part of each pixel a subtype covers: masks in [0, 1] by subtype."""

    masks: dict[str, Image] = field(default_factory=dict)

    def add(self, subtype: str, mask: Image) -> None:
        """Adds a mask; where two lesions of a subtype overlap, the larger share counts."""
        known = self.masks.get(subtype)
        self.masks[subtype] = mask if known is None else np.maximum(known, mask)


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
    fresh = rng.uniform() < 0.85  # the others are older and nearly as dark as the brain
    hu = head.brain_hu + (rng.uniform(28.0, 46.0) if fresh else rng.uniform(14.0, 24.0))
    angle = rng.uniform(0.0, 2.0 * np.pi)
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    size = rng.uniform(0.0, 1.0, 3)
    if subtype == "epidural":
        lateral = side * np.array(
            [np.cos(0.9 * (angle / np.pi - 1)), np.sin(0.9 * (angle / np.pi - 1))]
        )
        center = (70.0 * lateral[0], 80.0 * lateral[1], 22.0 + 38.0 * size[0])
        extent = (24.0 + 14.0 * size[1], 20.0 + 14.0 * size[1], 10.0 + 12.0 * size[2])
    elif subtype == "subdural":
        tilt = 0.8 * (angle / np.pi - 1)
        center = (side * 70.0 * np.cos(tilt), 80.0 * np.sin(tilt), 28.0 + 32.0 * size[0])
        extent = (60.0 + 45.0 * size[1], 24.0 + 24.0 * size[1], 5.0 + 9.0 * size[2])
    elif subtype == "subarachnoid":
        places = ((36.0, -10.0, 22.0), (45.0, 5.0, 45.0), (6.0, -8.0, 12.0), (35.0, -45.0, 50.0))
        x, y, z = places[int(rng.integers(len(places)))]
        center = (side * x, y + 20.0 * (size[0] - 0.5), z + 14.0 * (size[1] - 0.5))
        extent = (24.0 + 22.0 * size[2],) * 3
    elif subtype == "intraventricular":
        center = (0.0, 8.0, 26.0 + 18.0 * size[0])
        extent = (0.0, 34.0 - 50.0 * size[1], 11.0 + 14.0 * size[2])
    else:
        radius = 0.7 * np.sqrt(rng.uniform(0.1, 1.0))
        deep = rng.uniform() < 0.45
        lobar = (
            radius * 64.0 * np.cos(angle),
            radius * 78.0 * np.sin(angle),
            18.0 + 48.0 * size[0],
        )
        basal = (side * (22.0 + 8.0 * size[0]), -4.0 + 20.0 * (size[1] - 0.5), 28.0 + 8.0 * size[2])
        center = basal if deep else lobar
        scale = 7.0 + 13.0 * size[1]
        extent = (scale, scale * (0.8 + 0.6 * size[2]), scale * (0.8 + 0.5 * size[0]))
    return Lesion(
        subtype,
        (float(center[0]), float(center[1]), float(center[2])),
        (float(extent[0]), float(extent[1]), float(extent[2])),
        float(hu),
    )


def paint(section: Section, lesion: Lesion, head: Head, gain: float) -> Image:
    """Draws a lesion into a section.

    Args:
        section: The section; its picture is changed in place.
        lesion: What to draw.
        head: The head of the section.
        gain: Share of the lesion's contrast that shows, 1 for all of it.

    Returns:
        float32 mask of the section's shape, 0 to 1: the lesion's share of every pixel.
    """
    if abs(float(section.z.mean()) - lesion.center[2]) > 2.0 * max(lesion.extent) + 20.0:
        return np.zeros_like(section.hu)
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
    norm = float(np.hypot(cu, cv)) + 1e-3
    chord = np.sqrt((u / length - cu / norm) ** 2 + (v / length - cv / norm) ** 2)
    arc = chord * (0.5 * (head.half_width_mm + head.half_length_mm)) / lesion.extent[0]
    return arc**2 + ((section.z - lesion.center[2]) / lesion.extent[1]) ** 2


def _epidural(section: Section, lesion: Lesion, head: Head) -> Image:
    lens = lesion.extent[2] * np.maximum(1.0 - _along_skull(section, lesion, head), 0.0)
    return ramp(lens - section.depth - 0.5) * section.cavity


def _subdural(section: Section, lesion: Lesion, head: Head) -> Image:
    left = np.maximum(1.0 - _along_skull(section, lesion, head), 0.0)
    crescent = lesion.extent[2] * np.sqrt(left)
    one_side = ramp(np.sign(lesion.center[0]) * section.x - 2.0, 2.0)
    return ramp(crescent - section.depth - 0.5) * one_side * section.cavity


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
