"""The brain in its cavity: grey and white matter, sulci, cisterns, ventricles, calcifications."""

import numpy as np

from beam_pipelines.phantom_head import Head, Image, Section, blend, pair_of_balls, ramp

_FALX_HU = 48.0
_DEEP_GREY = (
    ((23.0, -6.0, 28.0), (8.0, 17.0, 14.0)),  # lentiform nucleus
    ((9.0, 10.0, 29.0), (7.0, 11.0, 10.0)),  # thalamus
)
# Centre, half axes, and how far the part moves outwards per mm towards the back.
_VENTRICLES = (
    ((9.0, -22.0, 36.0), (4.5, 15.0, 9.0), -0.25),  # frontal horn
    ((11.0, 4.0, 47.0), (5.5, 30.0, 7.0), 0.10),  # body
    ((21.0, 33.0, 35.0), (6.0, 17.0, 9.0), 0.25),  # atrium and occipital horn
    ((31.0, 4.0, 10.0), (2.5, 12.0, 4.5), 0.20),  # temporal horn
    ((0.0, 0.0, 27.0), (2.2, 12.0, 9.0), 0.0),  # third
    ((0.0, 34.0, -8.0), (6.5, 4.5, 9.0), 0.0),  # fourth
)


def draw_brain(head: Head, section: Section) -> None:
    """Draws the brain into a section and fills in its masks of fluid."""
    if not section.cavity.any():
        return
    hu, y, z, cavity = section.hu, section.y, section.z, section.cavity
    wave, side = np.abs(section.folds), np.abs(section.x)
    cerebellum = ramp(14.0 - z + 0.3 * (y - 30.0), 4.0) * ramp(y - 12.0, 6.0)
    cortex = ramp(14.0 + 8.0 * head.atrophy - section.depth, 8.0) * (1.0 - cerebellum)
    _draw_tissue(head, section, cerebellum, cortex)
    width = 0.12 + 0.22 * head.atrophy
    fissure = ramp(0.9 + head.atrophy - side) * ramp(np.abs(y) - 24.0, 6.0) * ramp(z - 12.0, 6.0)
    csf = np.maximum(cortex * ramp(width - wave, 0.25), fissure)
    if section.levels[0] < 42.0:
        csf = np.maximum(csf, _cisterns(head, section))
    section.csf = csf * cavity
    rim = ramp(1.0 + 2.2 * head.atrophy - section.depth, 1.5)  # between brain and skull
    blend(hu, np.maximum(rim * cavity, section.csf), head.csf_hu)
    falx = ramp(0.5 - side) * ramp(np.abs(y) - 26.0, 4.0) * ramp(z - 16.0, 6.0)
    blend(hu, 0.7 * falx * cavity, _FALX_HU)
    _draw_ventricles(head, section)
    for (cx, cy, cz), radius, density in head.calcifications:
        if section.levels[0] < cz + radius and section.levels[1] > cz - radius:
            distance = np.sqrt((section.x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
            blend(hu, ramp(radius - distance) * cavity, density)


def _draw_tissue(head: Head, section: Section, cerebellum: Image, cortex: Image) -> None:
    wave = np.abs(section.folds)
    ribbon = np.maximum(ramp(6.0 - section.depth, 3.0), cortex * ramp(0.75 - wave, 0.4))
    tissue = head.brain_hu + head.contrast_hu * ribbon + section.folds
    for center, radii in _DEEP_GREY:
        mask = pair_of_balls(section, center, radii)
        if mask is not None:
            blend(tissue, mask, head.brain_hu + head.contrast_hu)
    tissue += cerebellum * (0.5 * head.contrast_hu + 1.5 * wave)
    blend(section.hu, section.cavity, tissue)


def _draw_ventricles(head: Head, section: Section) -> None:
    swell = 0.85 + 0.7 * head.atrophy
    for center, (rx, ry, rz), slope in _VENTRICLES:
        radii = (rx * swell, ry * (0.8 + 0.3 * swell), rz * swell)
        mask = pair_of_balls(section, center, radii, slope)
        if mask is not None:
            section.ventricles = np.maximum(section.ventricles, mask * section.cavity)
    blend(section.hu, section.ventricles, head.csf_hu)


def _cisterns(head: Head, section: Section) -> Image:
    """Fluid around the midbrain, above the saddle, and in the Sylvian fissures."""
    side, y, z = np.abs(section.x), section.y, section.z
    wide = 1.0 + 1.2 * head.atrophy
    band = np.clip(1.5 - np.abs(z - 11.0) / 9.0, 0.0, 1.0)
    star = side + np.abs(y + 9.0 - 0.3 * side) - 8.0 * wide
    stem = np.abs(np.sqrt(side**2 + (y - 13.0) ** 2) - 17.0) - 1.3 * wide
    sylvian = np.abs(y + 9.0 - 0.12 * side + 1.5 * section.folds) - 1.4 * wide
    sylvian = np.maximum(sylvian, np.maximum(24.0 - side, np.abs(z - 22.0) - 17.0))
    insula = np.abs(side - 36.0 + 1.2 * section.folds) - 1.1 * wide
    insula = np.maximum(insula, np.maximum(np.abs(y - 2.0) - 15.0, np.abs(z - 28.0) - 12.0))
    center = ramp(-np.minimum(star, stem)) * band
    return np.maximum(center, ramp(-np.minimum(sylvian, insula)))
