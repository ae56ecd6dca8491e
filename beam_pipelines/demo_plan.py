"""Everything about a demo archive that is decided before the first slice is drawn.

Each kind of decision has its own stream of random numbers: identifiers, headers, heads, lesions,
order. Nothing that a file shows outside its pixels (its name, its place in the archive, its
header, how many slices its series has) shares a stream with the lesions, so none of it can tell a
label.
"""

from dataclasses import dataclass, replace

import numpy as np

from beam_pipelines.phantom_head import Head, draw_head
from beam_pipelines.phantom_headers import (
    HeaderVariant,
    SliceGeometry,
    SliceIdentity,
    plan_variants,
)
from beam_pipelines.phantom_lesions import Lesion, plan_lesions
from beam_pipelines.phantoms import Scan

BLEEDING_FRACTION = 0.48

_SECOND_STUDY_CHANCE = 0.09
_REPEATED_POSITION_CHANCE = 0.08
_NO_TILT_CHANCE = 0.2
_BROKEN_SHARE = 153_710 / 524_288  # what the real broken slice kept of its pixel bytes

# Streams of random numbers; the numbers are part of "same seed, same bytes".
_IDS, _HEADERS, _HEADS, _LESIONS, _ORDER, _SERIES, _PIXELS = range(7)


@dataclass(frozen=True)
class SlicePlan:
    """One slice: who and where it is. `keep` is the share of its pixel bytes that are written."""

    identity: SliceIdentity
    geometry: SliceGeometry
    level_mm: float
    keep: float = 1.0


@dataclass(frozen=True)
class StudyPlan:
    """One study with its one series."""

    subset: str  # "train" or "test", as in the archive's folders
    head: Head
    scan: Scan
    variant: HeaderVariant
    lesions: tuple[Lesion, ...]
    slices: tuple[SlicePlan, ...]


@dataclass(frozen=True)
class DemoPlan:
    """A whole archive.

    Attributes:
        studies: Train studies first.
        order: Pairs (study, slice): the order of the members.
        duplicates: SOPInstanceUIDs whose label rows appear twice, as four of the real ones do.
        num_patients: Patients, train and test.
        seed: The seed that all of it came from.
    """

    studies: tuple[StudyPlan, ...]
    order: tuple[tuple[int, int], ...]
    duplicates: tuple[str, ...]
    num_patients: int
    seed: int


def stream(seed: int, *path: int) -> np.random.Generator:
    """Returns the random numbers of one purpose; `path` names it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))


def pixel_stream(plan_seed: int, study: int, index: int) -> np.random.Generator:
    """Returns the random numbers of one slice's noise."""
    return stream(plan_seed, _PIXELS, study, index)


def plan_demo(
    patients: int, seed: int, test_fraction: float = 0.2, broken: int = 1, lesions: bool = True
) -> DemoPlan:
    """Plans an archive.

    Args:
        patients: Patients, each either in train or in test.
        seed: Decides everything else.
        test_fraction: Share of the patients in test.
        broken: Train slices whose pixel data are cut short.
        lesions: False for the same archive without any blood, for checks.

    Returns:
        The plan.
    """
    owners, num_train = _owners(patients, seed, test_fraction)
    variants = plan_variants(stream(seed, _HEADERS), len(owners), num_train)
    heads = [draw_head(stream(seed, _HEADS, study)) for study in range(len(owners))]
    planned: list[tuple[Lesion, ...]] = [()] * len(owners)
    if lesions:
        rng = stream(seed, _LESIONS)
        planned = plan_lesions(rng, heads[:num_train], BLEEDING_FRACTION)
        planned += plan_lesions(rng, heads[num_train:], BLEEDING_FRACTION)
    ids = stream(seed, _IDS)
    patient_ids = [_identifier(ids, 8) for _ in range(patients)]
    studies = [
        _plan_study(
            "train" if study < num_train else "test",
            patient_ids[owner], heads[study], variants[study], planned[study],
            ids, stream(seed, _SERIES, study),
        )
        for study, owner in enumerate(owners)
    ]  # fmt: skip
    order_rng = stream(seed, _ORDER)
    pairs = [(s, i) for s, study in enumerate(studies) for i in range(len(study.slices))]
    order = tuple(pairs[k] for k in order_rng.permutation(len(pairs)))
    train = [pair for pair in order if pair[0] < num_train]
    chosen = order_rng.permutation(len(train))
    for k in chosen[:broken]:
        studies[train[k][0]] = _cut_short(studies[train[k][0]], train[k][1])
    repeated = [train[k] for k in chosen[::-1][: min(2, len(train))]]
    duplicates = tuple(studies[s].slices[i].identity.sop_instance_uid for s, i in repeated)
    return DemoPlan(tuple(studies), order, duplicates, patients, seed)


def _owners(patients: int, seed: int, test_fraction: float) -> tuple[list[int], int]:
    """Returns the patient of every study, train studies first, and the number of those."""
    rng = stream(seed, _SERIES)
    num_test = min(round(test_fraction * patients), patients - 1)
    owners: list[int] = []
    num_train = 0
    for patient in range(patients):
        if patient == patients - num_test:
            num_train = len(owners)
        owners += [patient] * (2 if rng.uniform() < _SECOND_STUDY_CHANCE else 1)
    return owners, num_train if num_test else len(owners)


def _identifier(rng: np.random.Generator, digits: int) -> str:
    return f"ID_{int(rng.integers(16**digits)):0{digits}x}"


def _plan_study(
    subset: str, patient_id: str, head: Head, variant: HeaderVariant, lesions: tuple[Lesion, ...],
    ids: np.random.Generator, rng: np.random.Generator,
) -> StudyPlan:  # fmt: skip
    thickness = float(rng.choice([4.5, 4.8, 5.0, 5.0, 5.0, 5.5]))
    levels = _levels(rng, thickness)
    geometries = _geometries(rng, levels, variant)
    scan = Scan(
        rows=variant.rows,
        columns=variant.columns,
        pixel_spacing=variant.pixel_spacing,
        thickness_mm=thickness,
        noise_hu=float(rng.uniform(3.0, 7.0)),
        shading_hu=float(rng.uniform(1.0, 2.5)),
        blur_px=float(rng.uniform(0.55, 0.9)),
        round_view=bool(rng.uniform() < 0.75),
    )
    study_uid, series_uid = _identifier(ids, 10), _identifier(ids, 10)
    slices = tuple(
        SlicePlan(
            SliceIdentity(
                _identifier(ids, 9),
                "9999." + "".join(str(d) for d in (1, *ids.integers(10, size=37).tolist())),
                patient_id, study_uid, series_uid,
            ),
            geometry, level,
        )
        for level, geometry in zip(levels, geometries, strict=True)
    )  # fmt: skip
    return StudyPlan(subset, head, scan, variant, lesions, slices)


def _levels(rng: np.random.Generator, thickness: float) -> list[float]:
    """Returns the head coordinate of every slice, feet to head, mm."""
    first, last = rng.uniform(-48.0, -26.0), rng.uniform(96.0, 122.0)
    uneven, dense_base, repeats = rng.uniform(size=3)
    levels = np.arange(first, last, thickness)
    if uneven < 0.5:
        levels = levels + rng.uniform(-0.25, 0.25, len(levels))
    if dense_base < 0.15:  # thinner steps through the posterior fossa, as older scanners do
        low = np.arange(first, 10.0, 0.6 * thickness)
        levels = np.concatenate([low, np.arange(low[-1] + thickness, last, thickness)])
    if repeats < _REPEATED_POSITION_CHANCE:
        again = int(rng.integers(len(levels)))
        levels = np.insert(levels, again, levels[again])
    return [float(level) for level in levels]


def _geometries(
    rng: np.random.Generator, levels: list[float], variant: HeaderVariant
) -> list[SliceGeometry]:
    """Returns the stated geometry: levels along the slice normal, with a tilted gantry."""
    upright = rng.uniform() < _NO_TILT_CHANCE
    drawn = float(np.deg2rad(rng.uniform(4.0, 24.0)))
    tilt = 0.0 if upright else drawn
    along_table = rng.uniform() < 0.7  # else the positions follow the normal, as in a reformat
    start = rng.uniform(-300.0, 300.0)
    half = 0.5 * variant.pixel_spacing * np.array([variant.columns - 1, variant.rows - 1])
    x, y = -float(half[0]), -float(half[1]) + float(rng.uniform(-20.0, 20.0))
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(tilt)), -float(np.sin(tilt)))
    geometries = []
    for level in levels:
        if along_table:
            position = (x, y, start + level / float(np.cos(tilt)))
        else:
            position = (x, y + level * np.sin(tilt), start + level * np.cos(tilt))
        geometries.append(SliceGeometry(tuple(float(p) for p in position), orientation))  # type: ignore[arg-type]
    return geometries


def _cut_short(study: StudyPlan, index: int) -> StudyPlan:
    slices = list(study.slices)
    slices[index] = replace(slices[index], keep=_BROKEN_SHARE)
    return replace(study, slices=tuple(slices))
