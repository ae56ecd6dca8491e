import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines import phantoms
from beam_pipelines.demo_plan import StudyPlan, pixel_stream, plan_demo
from beam_pipelines.head_box import Box, crop_box, find_head
from beam_pipelines.phantom_headers import encode, store
from beam_pipelines.phantoms import OUTSIDE_HU, render_slice
from beam_pipelines.pixels import Rescale, read_stored, to_hounsfield

RESCALE = Rescale(16, True, 1.0, 0.0)


def air(rows: int = 512, columns: int = 512) -> np.ndarray:
    noise = np.random.default_rng(0).normal(-1000, 20, (rows, columns))
    return noise.astype(np.int16)


def with_disc(hounsfield: np.ndarray, row: int, column: int, radius: int) -> np.ndarray:
    return cv2.circle(hounsfield.copy(), (column, row), radius, 40, -1)


def test_the_box_is_around_the_head():
    box = find_head(with_disc(air(), 240, 260, 150), RESCALE)
    assert box is not None
    # One pixel in four is looked at each way: the box may be four pixels too large a side.
    for found, true, outwards in zip(box, (90, 110, 391, 411), (-1, -1, 1, 1), strict=True):
        assert 0 <= (found - true) * outwards <= 4


@pytest.mark.parametrize("shape", [(512, 512), (401, 399), (512, 374), (64, 64), (1024, 900)])
def test_the_whole_head_is_in_the_box(shape: tuple[int, int]):
    rows, columns = shape
    hounsfield = with_disc(air(*shape), rows // 2, columns // 2, min(shape) // 3)
    box = find_head(hounsfield, RESCALE)
    assert box is not None
    assert (box.of(hounsfield) > -500).sum() == (hounsfield > -500).sum()


def test_table_and_head_rest_are_left_out():
    hounsfield = with_disc(air(), 200, 256, 120)
    alone = find_head(hounsfield, RESCALE)
    hounsfield[330:340] = 90  # a table of 10 px, 5 mm
    cv2.ellipse(hounsfield, (256, 200), (150, 150), 0, 20, 160, 90, 5)  # a shell
    hounsfield[150:200, 470:490] = 300  # a clamp
    assert find_head(hounsfield, RESCALE) == alone


def test_thin_parts_of_the_head_grow_back():
    hounsfield = with_disc(air(), 240, 256, 120)
    alone = find_head(hounsfield, RESCALE)
    hounsfield[236:244, 376:392] = 40  # an ear: 8 px thick, 16 long
    box = find_head(hounsfield, RESCALE)
    assert alone is not None and box is not None
    assert box.right >= 388 > alone.right
    assert box[:3] == alone[:3]


def test_what_touches_the_head_is_followed_for_some_millimetres_alone():
    hounsfield = with_disc(air(), 240, 256, 120)
    alone = find_head(hounsfield, RESCALE)
    hounsfield[356:364] = 90
    box = find_head(hounsfield, RESCALE)
    assert alone is not None and box is not None
    assert np.abs(np.subtract(box, alone)).max() <= 8


@pytest.mark.parametrize("radius", [0, 10, 25])
def test_air_and_small_things_are_no_head(radius: int):
    assert find_head(with_disc(air(), 100, 100, radius), RESCALE) is None


def test_stored_values_are_rescaled():
    hounsfield = with_disc(air(), 240, 256, 120)
    hounsfield = np.maximum(hounsfield, -1024)
    expected = find_head(hounsfield, RESCALE)
    assert expected is not None
    assert find_head(hounsfield + 1024, Rescale(12, False, 1.0, -1024.0)) == expected
    padded = np.where(hounsfield < -900, -2000, hounsfield + 1024).astype(np.int16)
    assert find_head(padded, Rescale(16, True, 1.0, -1024.0)) == expected


sides = st.integers(1, 600)


@given(sides, sides, st.data())
def test_the_crop_holds_every_head_and_stays_in_the_slice(rows: int, columns: int, data):
    def span(size: int) -> tuple[int, int]:
        start = data.draw(st.integers(0, size - 1))
        return start, data.draw(st.integers(start + 1, size))

    heads = []
    for _ in range(data.draw(st.integers(1, 4))):
        (top, bottom), (left, right) = span(rows), span(columns)
        heads.append(Box(top, left, bottom, right))
    box = crop_box([None, *heads], {(rows, columns)})
    assert box is not None
    assert 0 <= box.top <= min(h.top for h in heads)
    assert 0 <= box.left <= min(h.left for h in heads)
    assert max(h.bottom for h in heads) <= box.bottom <= rows
    assert max(h.right for h in heads) <= box.right <= columns
    height, width = box.bottom - box.top, box.right - box.left
    assert height == width or min(height, width) == min(rows, columns)


def test_the_crop_is_a_square_with_a_margin():
    heads = [Box(100, 120, 250, 300), None, Box(110, 100, 300, 280)]
    assert crop_box(heads, {(512, 512)}) == Box(94, 94, 306, 306)


def test_a_crop_that_would_leave_the_slice_moves_inwards():
    assert crop_box([Box(0, 300, 200, 512)], {(512, 512)}) == Box(0, 288, 224, 512)
    assert crop_box([Box(0, 10, 512, 500)], {(512, 512)}) == Box(0, 0, 512, 512)


def test_a_narrow_slice_is_kept_as_wide_as_it_is():
    assert crop_box([Box(10, 0, 410, 300)], {(512, 300)}) == Box(0, 0, 424, 300)


def test_there_is_no_crop_without_a_head_or_with_two_sizes():
    assert crop_box([None, None], {(512, 512)}) is None
    assert crop_box([], set()) is None
    assert crop_box([Box(0, 0, 9, 9)], {(512, 512), (256, 256)}) is None


def draw(study: StudyPlan, number: int, index: int) -> tuple[np.ndarray, Rescale]:
    """A slice of a phantom, as it is read from its file."""
    plan = study.slices[index]
    rng = pixel_stream(0, number, index)
    hounsfield, _ = render_slice(study.head, study.scan, study.lesions, plan.level_mm, rng)
    stored = store(hounsfield, study.variant, hounsfield == OUTSIDE_HU)
    return read_stored(encode(plan.identity, plan.geometry, study.variant, stored))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_crop_of_a_phantom_holds_its_head_in_every_slice(
    monkeypatch: pytest.MonkeyPatch, number: int
):
    study = plan_demo(6, 0).studies[number]
    drawn = [draw(study, number, i) for i in range(0, len(study.slices), 5)]
    box = crop_box([find_head(*d) for d in drawn], {stored.shape for stored, _ in drawn})
    assert box is not None
    monkeypatch.setattr(phantoms, "_draw_head_rest", lambda hu, scan: None)
    shares = []
    for i in range(0, len(study.slices), 5):
        hounsfield = to_hounsfield(*draw(study, number, i))
        # Noise leaves no pixel of air above -500.
        head = hounsfield > -500
        assert box.of(head).sum() == head.sum()
        shares.append((head.mean(), box.of(head).mean()))
    whole, cropped = np.mean(shares, axis=0)
    assert cropped > 1.1 * whole
