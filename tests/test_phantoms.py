import dataclasses

import numpy as np
import pytest

from beam_pipelines.phantom_head import Head, draw_head
from beam_pipelines.phantom_lesions import SUBTYPES, Lesion, draw_lesion, plan_lesions
from beam_pipelines.phantoms import (
    MIN_LESION_AREA_MM2,
    OUTSIDE_HU,
    Scan,
    labels_of,
    render_slice,
)

SCAN = Scan(
    rows=512,
    columns=512,
    pixel_spacing=0.47,
    thickness_mm=5.0,
    noise_hu=4.0,
    shading_hu=1.5,
    blur_px=0.7,
    round_view=True,
)
STILL = dataclasses.replace(SCAN, noise_hu=0.0, shading_hu=0.0)


def head(seed: int = 0) -> Head:
    return dataclasses.replace(
        draw_head(np.random.default_rng(seed)), pitch=0.0, roll=0.0, calcifications=()
    )


def draw(scan: Scan, lesions: tuple[Lesion, ...], level_mm: float, seed: int = 0) -> np.ndarray:
    hu, _ = render_slice(head(), scan, lesions, level_mm, np.random.default_rng(seed))
    return hu


def lesion_at(subtype: str, level_mm: float = 36.0) -> Lesion:
    lesion = draw_lesion(np.random.default_rng(3), subtype, head())
    return dataclasses.replace(lesion, center=(*lesion.center[:2], level_mm))


def test_slice_holds_air_bone_brain_and_fluid() -> None:
    hu = draw(STILL, (), 40.0)
    assert hu.shape == (512, 512)
    assert hu.dtype == np.float32
    assert (hu[0, 0], hu[5, 256]) == (OUTSIDE_HU, pytest.approx(-1000.0))
    in_head = hu[(hu > -500) & (hu < 3000)]
    assert np.mean(in_head > 600) > 0.05  # skull
    assert np.mean((in_head > 20) & (in_head < 45)) > 0.4  # brain
    assert np.mean((in_head > 0) & (in_head < 15)) > 0.01  # fluid


def test_slice_above_the_vertex_is_air() -> None:
    hu = draw(dataclasses.replace(STILL, round_view=False), (), 130.0)
    assert np.mean(hu < -990) > 0.95


@pytest.mark.parametrize(("rows", "columns"), [(408, 408), (512, 374), (640, 512), (401, 399)])
def test_any_matrix_is_drawn(rows: int, columns: int) -> None:
    scan = dataclasses.replace(SCAN, rows=rows, columns=columns, pixel_spacing=240 / columns)
    assert draw(scan, (), 20.0).shape == (rows, columns)


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_blood_is_bright_and_labelled_where_it_is_large_enough(subtype: str) -> None:
    lesion = lesion_at(subtype)
    rng = np.random.default_rng(1)
    hu, areas = render_slice(head(), STILL, (lesion,), 36.0, rng)
    change = hu - draw(STILL, (), 36.0, seed=1)
    assert areas[subtype] > MIN_LESION_AREA_MM2
    assert change.max() > 8.0
    labels = dict(zip((*SUBTYPES, "any"), labels_of(areas), strict=True))
    assert [name for name, label in labels.items() if label] == sorted(
        [subtype, "any"], key=[*SUBTYPES, "any"].index
    )


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_lesion_changes_nothing_outside_its_reach(subtype: str) -> None:
    lesion = lesion_at(subtype)
    far = lesion.center[2] - 2.0 * max(lesion.extent) - 10.0
    np.testing.assert_array_equal(draw(SCAN, (lesion,), far), draw(SCAN, (), far))


def test_noise_does_not_depend_on_lesions() -> None:
    lesions = (lesion_at("intraparenchymal"), lesion_at("subdural"))
    with_blood, without = draw(SCAN, lesions, 36.0), draw(SCAN, (), 36.0)
    assert np.mean(with_blood == without) > 0.9


def test_neighbouring_slices_of_a_lesion_share_its_label() -> None:
    lesion = lesion_at("intraparenchymal")
    levels = np.arange(-20.0, 90.0, 5.0).tolist()
    labels = [
        labels_of(render_slice(head(), STILL, (lesion,), z, np.random.default_rng(k))[1])[-1]
        for k, z in enumerate(levels)
    ]
    positive = np.flatnonzero(labels)
    assert len(positive) >= 3
    assert positive[-1] - positive[0] == len(positive) - 1


def test_labels_need_a_minimum_area() -> None:
    areas = dict.fromkeys(SUBTYPES, 0.0)
    assert labels_of(areas) == (0, 0, 0, 0, 0, 0)
    areas["subdural"] = MIN_LESION_AREA_MM2 - 0.1
    assert labels_of(areas) == (0, 0, 0, 0, 0, 0)
    areas["subdural"] = MIN_LESION_AREA_MM2
    assert labels_of(areas) == (0, 0, 0, 0, 1, 1)


def test_planned_lesions_cover_every_subtype() -> None:
    planned = plan_lesions(np.random.default_rng(0), [head(s) for s in range(40)], 0.5)
    assert sum(bool(lesions) for lesions in planned) == 20
    assert {lesion.subtype for lesions in planned for lesion in lesions} == set(SUBTYPES)
