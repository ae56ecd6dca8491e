"""A simplified head, drawn in Hounsfield units one section at a time.

Everything is a formula of head coordinates in millimetres, so any section of any head can be
drawn alone and sections of one head agree with each other: x to the patient's left (right in the
picture), y to the back (down), z to the vertex; the origin lies between the ears, on the plane of
the orbits and the ear canals. The brain cavity reaches from about z = -40 (foramen magnum) to the
head's `height_mm`.

Irregular things (sulci, folia, air cells, muscle) are level sets of one periodic random texture
which is the same for all heads; a head takes its own place in it.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]

AIR_HU = -1000.0
FAT_HU = -90.0
MUSCLE_HU = 52.0
SKIN_HU = 45.0

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
    brain_hu: float
    contrast_hu: float  # grey above white matter
    csf_hu: float
    skull_hu: float
    atrophy: float  # 0 (young) to 1: wider sulci and ventricles
    texture_mm: tuple[float, float, float]
    calcifications: tuple[tuple[float, float, float, float, float], ...]  # x, y, z, radius, HU
    frontal_sinus: float


@dataclass
class Section:
    """One plane through a head. Arrays are float32 of shape (rows, columns); masks are in [0, 1].

    Attributes:
        hu: Hounsfield units, without noise.
        x: Head coordinate to the patient's left, mm.
        y: Head coordinate to the back, mm.
        z: Head coordinate to the vertex, mm; not constant when the head nods.
        depth: Distance inwards from the inner skull surface, mm; negative in bone and scalp.
        cavity: Where the brain cavity is.
        csf: Fluid in sulci, fissures and cisterns.
        ventricles: Fluid in the ventricles.
        folds: The random texture at this plane, mean 0 and standard deviation 1.
    """

    hu: Image
    x: Image
    y: Image
    z: Image
    depth: Image
    cavity: Image
    csf: Image
    ventricles: Image
    folds: Image


def draw_head(rng: np.random.Generator) -> Head:
    """Returns a random head. Always makes the same number of draws."""
    u = rng.uniform(size=32)
    size = 0.93 + 0.14 * u[0]
    atrophy = float(u[1] ** 1.5)
    side = 1.0 if u[2] < 0.5 else -1.0
    calcium = 90.0 + 160.0 * u[3]
    spots = [
        (0.4, (0.0, 24.0, 27.0, 2.0 + 1.2 * u[4])),  # pineal gland
        (0.4, (21.0, 31.0, 37.0, 2.2 + 1.8 * u[5])),  # choroid plexus, each side
        (0.4, (-21.0, 31.0, 37.0, 2.2 + 1.8 * u[6])),
        (0.15, (side * 19.0, -8.0, 27.0, 2.0 + 1.5 * u[7])),  # globus pallidus
        (0.25, (0.8, -45.0 + 20.0 * u[8], 62.0, 1.8 + 1.5 * u[9])),  # falx
    ]
    return Head(
        half_width_mm=float(66.0 * size * (0.96 + 0.08 * u[10])),
        half_length_mm=float(82.0 * size * (0.96 + 0.08 * u[11])),
        height_mm=float(94.0 * size),
        skull_mm=float(5.0 + 3.5 * u[12]),
        scalp_mm=float(4.0 + 4.0 * u[13]),
        center_mm=(float(16.0 * u[14] - 8.0), float(16.0 * u[15] - 8.0)),
        rotation_rad=float(np.deg2rad(26.0 * (u[16] + u[17] - 1.0))),
        pitch=float(0.24 * u[18] - 0.12),
        roll=float(0.1 * u[19] - 0.05),
        lean=float(0.24 * u[20] - 0.08),
        brain_hu=float(24.0 + 6.0 * u[21]),
        contrast_hu=float(5.0 + 4.0 * u[22]),
        csf_hu=float(4.0 + 6.0 * u[23]),
        skull_hu=float(1150.0 + 600.0 * u[24]),
        atrophy=atrophy,
        texture_mm=(float(192 * u[25]), float(192 * u[26]), float(192 * u[27])),
        calcifications=tuple(
            (*place, calcium)
            for (chance, place), v in zip(spots, rng.uniform(size=5), strict=True)
            if v < chance
        ),
        frontal_sinus=float(u[28]),
    )


def draw_section(head: Head, shape: tuple[int, int], step_mm: float, level_mm: float) -> Section:
    """Draws the plane of a head at one level.

    Args:
        head: The head.
        shape: Rows and columns of the picture.
        step_mm: Distance between neighbouring pixels.
        level_mm: Head coordinate z of the plane where it crosses the head's axis.

    Returns:
        The section, with a clean picture that lesions and noise can be added to.
    """
    level_mm = float(level_mm)  # a NumPy scalar would turn every array into float64
    x, y, folds = _coordinates(head, shape, step_mm, level_mm)
    z = level_mm + head.pitch * y + head.roll * x
    egg = x / (head.half_width_mm * (1.0 + 0.12 * y / head.half_length_mm))
    up = np.maximum(z, 0.0) / head.height_mm
    down = np.minimum(z, 0.0) / 150.0
    radius = np.sqrt(egg**2 + (y / head.half_length_mm) ** 2 + up**3 + down**2)
    depth = (1.0 - radius) * (0.5 * (head.half_width_mm + head.half_length_mm))
    above = z - base_of_skull(x, y) if level_mm < 45.0 else z + 40.0
    section = Section(
        hu=np.full(shape, AIR_HU, np.float32),
        x=x, y=y, z=z, depth=depth, folds=folds,
        cavity=ramp(depth) * ramp(above),
        csf=np.zeros(shape, np.float32),
        ventricles=np.zeros(shape, np.float32),
    )  # fmt: skip
    _draw_scalp_and_skull(head, section)
    if level_mm < 40.0:
        _draw_face_and_base(head, section, above)
    _draw_brain(head, section)
    return section


def ramp(distance: Image, width: float = 1.0) -> Image:
    """Returns a mask which rises from 0 to 1 over `width` mm around distance 0."""
    return np.clip(distance / width + 0.5, 0.0, 1.0).astype(np.float32, copy=False)


def blend(hu: Image, mask: Image, value: float | Image) -> None:
    """Moves a picture towards a value where the mask says so, in place."""
    hu += mask * (value - hu)


def base_of_skull(x: Image, y: Image) -> Image:
    """Returns the height of the floor of the brain cavity, mm, with its three steps.

    From front to back: the anterior fossa above the orbits, the middle fossa with the saddle in
    the midline, the petrous ridges, and the posterior fossa around the foramen magnum.
    """
    side = np.abs(x)
    ridge = y - (6.0 + 0.45 * side)
    front = np.clip((-26.0 - y) / 8.0 + 0.5, 0.0, 1.0)
    back = np.clip(ridge / 8.0 + 0.5, 0.0, 1.0)
    lateral = np.clip((side - 12.0) / 8.0, 0.0, 1.0)
    middle = -3.0 - 14.0 * lateral
    posterior = -44.0 + 0.008 * (side**2 + (y - 42.0) ** 2)
    orbit_roof = np.maximum(14.0 - 0.016 * (side - 30.0) ** 2, 3.0)
    floor = front * orbit_roof + back * posterior + (1.0 - front - back) * middle
    floor += lateral * 15.0 * np.maximum(1.0 - (ridge / 9.0) ** 2, 0.0)
    floor += lateral * 6.0 * np.maximum(1.0 - ((y + 26.0 + 0.1 * side) / 6.0) ** 2, 0.0)
    return floor.astype(np.float32, copy=False)


@functools.lru_cache(maxsize=1)
def _texture() -> Image:
    """A periodic random field of shape (96, 96, 96) at 2 mm, details of about 8 mm."""
    white = np.random.default_rng(2019).standard_normal((_TEXTURE_SIZE,) * 3)
    k = np.fft.fftfreq(_TEXTURE_SIZE, _TEXTURE_STEP_MM)
    wave = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :49] ** 2)
    wave[..., -1] = np.abs(k[48])
    band = np.exp(-0.5 * ((wave - 0.045) / 0.016) ** 2)
    field = np.fft.irfftn(np.fft.rfftn(white) * band, s=white.shape, axes=(0, 1, 2))
    return (field / field.std()).astype(np.float32)


def _coordinates(
    head: Head, shape: tuple[int, int], step_mm: float, level_mm: float
) -> tuple[Image, Image, Image]:
    """Returns x and y in mm and the texture of a plane, each of `shape`."""
    cos, sin = np.cos(head.rotation_rad), np.sin(head.rotation_rad)
    column = (np.arange(shape[1], dtype=np.float32) - 0.5 * (shape[1] - 1)) * step_mm
    row = (np.arange(shape[0], dtype=np.float32) - 0.5 * (shape[0] - 1)) * step_mm
    column -= head.center_mm[0]
    row -= head.center_mm[1] + head.lean * (level_mm - 30.0)
    x = (cos * column[None, :] + sin * row[:, None]).astype(np.float32)
    y = (cos * row[:, None] - sin * column[None, :]).astype(np.float32)
    scale = step_mm / _TEXTURE_STEP_MM
    origin = ((np.array([x[0, 0], y[0, 0]]) + head.texture_mm[:2]) / _TEXTURE_STEP_MM).tolist()
    to_voxel = np.array(
        [[cos * scale, sin * scale, origin[0]], [-sin * scale, cos * scale, origin[1]]]
    )
    at = ((level_mm + head.texture_mm[2]) / _TEXTURE_STEP_MM) % _TEXTURE_SIZE
    below, part = int(at), at - int(at)
    volume = _texture()
    plane = (1.0 - part) * volume[below % 96] + part * volume[(below + 1) % 96]
    plane /= np.sqrt(part**2 + (1.0 - part) ** 2 + 1.6 * part * (1.0 - part))
    folds = cv2.warpAffine(
        plane.astype(np.float32), to_voxel, (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    return x, y, folds


def _draw_scalp_and_skull(head: Head, section: Section) -> None:
    hu, depth = section.hu, section.depth
    skull = head.skull_mm + 0.7 * section.folds
    outside = depth + skull + head.scalp_mm
    blend(hu, ramp(outside), SKIN_HU)
    blend(hu, ramp(outside - 2.0), FAT_HU)
    temporal = ramp(np.abs(section.x) - 42.0, 10.0) * ramp(40.0 - section.z, 15.0)
    temporal *= ramp(28.0 - np.abs(section.y + 15.0), 15.0)
    blend(hu, ramp(outside - 3.5) * temporal, MUSCLE_HU)
    middle = np.maximum(1.0 - (2.0 * depth / skull + 1.0) ** 2, 0.0)  # spongy bone between tables
    blend(hu, ramp(depth + skull), head.skull_hu * (1.0 - 0.45 * middle))


def _draw_face_and_base(head: Head, section: Section, above: Image) -> None:
    """Draws what lies under the brain cavity: bone, air cells, orbits, sinuses, neck."""
    hu, x, y, z, folds = section.hu, section.x, section.y, section.z, section.folds
    below = ramp(section.depth + head.skull_mm) * ramp(-above - 4.5 + folds)
    blend(hu, below, FAT_HU)
    blend(hu, below * ramp(folds + 0.7, 1.0), MUSCLE_HU)
    side = np.abs(x)

    def ball(cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> Image:
        q = ((side - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2
        return ramp(1.0 - q, 2.0 / min(rx, ry))

    bone = 0.75 * head.skull_hu
    front = -head.half_length_mm
    blend(hu, below * ball(0, front + 32, -24, 44, 32, 26), 0.2 * bone)
    blend(hu, below * ball(31, front + 18, -2, 17, 24, 16), FAT_HU)  # orbits
    blend(hu, below * ball(31, front + 12, -2, 12, 12, 12), 35.0)
    blend(hu, below * ball(31, front + 12, -2, 10, 10, 10), 12.0)
    blend(hu, below * ball(28, front + 24, -32, 14, 15, 15), AIR_HU)  # maxillary sinuses
    air = ball(0, front + 22, -14, 13, 26, 30) * ramp(np.abs(folds) - 0.35, 0.3)
    blend(hu, below * air, AIR_HU)  # nose and ethmoid cells
    blend(hu, below * ball(0, 10, -18, 12, 9, 16), bone)  # clivus
    blend(hu, below * ball(46, 22, -14, 17, 17, 20), bone)  # mastoids
    cells = ball(48, 26, -14, 12, 12, 16) * ramp(folds - 0.1, 0.4)
    blend(hu, ramp(-above) * cells, -650.0)
    blend(hu, below * (ball(0, 36, -62, 26, 24, 18) - ball(0, 36, -62, 15, 14, 30)).clip(0), bone)
    blend(hu, below * ball(0, 36, -60, 13, 12, 30), head.csf_hu)  # spinal canal
    blend(hu, below * ball(0, 36, -60, 7, 6, 40), head.brain_hu + 3.0)
    blend(hu, ball(0, front - 1, 20, 8 + 18 * head.frontal_sinus, 4, 14), AIR_HU)


def _draw_brain(head: Head, section: Section) -> None:
    hu, x, y, z, depth, folds = (
        section.hu, section.x, section.y, section.z, section.depth, section.folds,
    )  # fmt: skip
    if not section.cavity.any():
        return
    grey = head.brain_hu + head.contrast_hu
    side = np.abs(x)
    cerebellum = ramp(14.0 - z + 0.3 * (y - 30.0), 4.0) * ramp(y - 12.0, 6.0)
    width = 0.10 + 0.22 * head.atrophy
    outer = ramp(14.0 + 8.0 * head.atrophy - depth, 8.0) * (1.0 - cerebellum)
    ribbon = np.maximum(ramp(6.0 - depth, 3.0), outer * ramp(0.75 - np.abs(folds), 0.4))
    tissue = head.brain_hu + head.contrast_hu * ribbon + 1.0 * folds

    def ball(cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> Image:
        q = ((side - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2
        return ramp(1.0 - q, 2.0 / min(rx, ry))

    level = float(z.mean())
    if 8.0 < level < 50.0:
        blend(tissue, ball(23, -6, 28, 8, 17, 14), grey)  # lentiform nucleus
        blend(tissue, ball(9, 10, 29, 7, 11, 10), grey)  # thalamus
    tissue += cerebellum * (0.5 * head.contrast_hu + 1.5 * np.abs(folds))
    blend(hu, section.cavity, tissue)
    rim = ramp(1.0 + 2.2 * head.atrophy - depth, 1.5)
    fluid = np.maximum(rim, outer * ramp(width - np.abs(folds), 0.25))
    fissure = ramp(0.9 + head.atrophy - side) * ramp(np.abs(y) - 24.0, 6.0) * ramp(z - 12.0, 6.0)
    section.csf = np.maximum(outer * ramp(width + 0.05 - np.abs(folds), 0.25), fissure)
    if level < 55.0:
        cisterns = _cisterns(head, section)
        section.csf = np.maximum(section.csf, cisterns)
    section.csf *= section.cavity
    fluid = np.maximum(fluid * section.cavity, section.csf)
    blend(hu, fluid, head.csf_hu)
    falx = ramp(0.5 - side) * ramp(np.abs(y) - 26.0, 4.0) * ramp(z - 16.0, 6.0)
    blend(hu, 0.7 * falx * section.cavity, 48.0)
    if -25.0 < level < 70.0:
        section.ventricles = _ventricles(head, section) * section.cavity
        blend(hu, section.ventricles, head.csf_hu)
    for cx, cy, cz, radius, density in head.calcifications:
        distance = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        blend(hu, ramp(radius - distance) * section.cavity, density)


def _cisterns(head: Head, section: Section) -> Image:
    """Fluid around the midbrain, above the saddle, and in the Sylvian fissures."""
    side, y, z = np.abs(section.x), section.y, section.z
    wide = 1.0 + 1.2 * head.atrophy
    band = np.clip(1.0 - np.abs(z - 11.0) / 9.0, 0.0, 1.0)
    star = side + np.abs(y + 9.0 - 0.3 * side) - 8.0 * wide
    stem = np.abs(np.sqrt(side**2 + (y - 13.0) ** 2) - 17.0) - 1.3 * wide
    sylvian = np.abs(y + 9.0 - 0.12 * side + 1.5 * section.folds) - 1.4 * wide
    sylvian = np.maximum(sylvian, np.maximum(24.0 - side, np.abs(z - 22.0) - 17.0))
    insula = np.abs(side - 36.0 + 1.2 * section.folds) - 1.1 * wide
    insula = np.maximum(insula, np.maximum(np.abs(y - 2.0) - 15.0, np.abs(z - 28.0) - 12.0))
    center = np.minimum(star, stem)
    return np.maximum(ramp(-center) * band, ramp(-np.minimum(sylvian, insula)))


def _ventricles(head: Head, section: Section) -> Image:
    side, y, z = np.abs(section.x), section.y, section.z
    swell = 0.75 + 0.7 * head.atrophy
    best: Image | None = None
    for cx, cy, cz, rx, ry, rz, slope in (
        (9.0, -22.0, 36.0, 4.5, 15.0, 9.0, -0.25),  # frontal horn
        (11.0, 4.0, 47.0, 5.5, 30.0, 7.0, 0.10),  # body
        (21.0, 33.0, 35.0, 6.0, 17.0, 9.0, 0.25),  # atrium and occipital horn
        (31.0, 4.0, 10.0, 2.5, 12.0, 4.5, 0.20),  # temporal horn
        (0.0, 0.0, 27.0, 2.2, 12.0, 9.0, 0.0),  # third
        (0.0, 34.0, -8.0, 6.5, 4.5, 9.0, 0.0),  # fourth
    ):
        across = (side - cx - slope * (y - cy)) / (rx * swell)
        q = (
            across**2
            + ((y - cy) / (ry * (0.8 + 0.3 * swell))) ** 2
            + ((z - cz) / (rz * swell)) ** 2
        )
        part = (1.0 - q) * rx
        best = part if best is None else np.maximum(best, part)
    assert best is not None
    return ramp(best, 1.5)
