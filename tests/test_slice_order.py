import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import AXIAL, tilted

from beam_pipelines.slice_order import gaps, slice_normal, slice_order, slice_positions


def stack(heights: np.ndarray, orientation: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and orientations of slices at heights along their normal, as DICOM writes them."""
    normal = np.cross(orientation[:3], orientation[3:])
    start = np.array([-125.0, -110.0, 30.0])
    positions = np.round(start + np.asarray(heights)[:, None] * normal, 6)
    return positions, np.round(np.tile(orientation, (len(heights), 1)), 6)


heights = st.lists(st.floats(-300, 300).map(lambda v: round(v, 1)), min_size=1, max_size=30)


@given(heights, st.floats(-35, 35), st.randoms())
def test_order_is_by_height_whatever_the_files_order_and_the_tilt(
    values: list[float], degrees: float, random
):
    random.shuffle(values)
    positions = slice_positions(*stack(np.array(values), tilted(degrees)))
    order = slice_order(positions, [None] * len(values), [f"{i:03d}" for i in range(len(values))])
    assert [values[i] for i in order] == sorted(values)


@given(st.integers(1, 20), st.randoms(), st.floats(-35, 35))
def test_positions_do_not_depend_on_the_files_order(count: int, random, degrees: float):
    positions, orientations = stack(np.arange(count) * 4.7, tilted(degrees))
    orientations += np.random.default_rng(count).normal(0, 1e-6, orientations.shape)
    order = list(range(count))
    random.shuffle(order)
    shuffled = slice_positions(positions[order], orientations[order])
    np.testing.assert_array_equal(shuffled, slice_positions(positions, orientations)[order])


def test_a_series_scanned_downwards_comes_out_the_same():
    upwards = stack(np.arange(5) * 5.0, AXIAL)
    # Rows that run the other way turn the cross product to the feet.
    flipped = np.array(AXIAL) * [-1, -1, -1, 1, 1, 1]
    downwards = upwards[0], np.tile(flipped, (5, 1))
    np.testing.assert_array_equal(slice_positions(*upwards), [30, 35, 40, 45, 50])
    np.testing.assert_array_equal(slice_positions(*downwards), slice_positions(*upwards))


def test_tilt_decides_where_z_alone_would_not():
    """Slices of a tilted stack that were moved in their plane: z runs against the normal."""
    orientation = np.array(tilted(30))
    normal, down_the_columns = np.cross(orientation[:3], orientation[3:]), orientation[3:]
    positions = np.array([normal * 0, normal * 2 - down_the_columns * 20])
    assert positions[1, 2] < positions[0, 2]
    np.testing.assert_allclose(
        slice_positions(positions, np.tile(orientation, (2, 1))), [0, 2], atol=1e-3
    )


@pytest.mark.parametrize(
    ("orientation", "normal"),
    [
        (AXIAL, (0, 0, 1)),
        ((-1, 0, 0, 0, 1, 0), (0, 0, 1)),
        ((0, 1, 0, 0, 0, -1), (1, 0, 0)),  # sagittal: towards the left
        ((1, 0, 0, 0, 0, -1), (0, 1, 0)),  # coronal: towards the back
    ],
)
def test_normal_points_to_the_head(orientation: tuple[float, ...], normal: tuple[float, ...]):
    np.testing.assert_allclose(slice_normal(np.array([orientation], np.float64)), normal)


@pytest.mark.parametrize("orientation", [(0,) * 6, (1, 0, 0, 1, 0, 0), (np.nan,) * 6])
def test_orientations_that_span_no_plane_are_refused(orientation: tuple[float, ...]):
    with pytest.raises(ValueError, match="ImageOrientationPatient spans no plane"):
        slice_normal(np.array([orientation], np.float64))


def test_slices_at_one_place_go_by_number_and_then_by_uid():
    positions = np.array([5.0, 5.0, 5.0, 5.0, 0.0])
    numbers = [None, 7, None, 2, 9]
    assert slice_order(positions, numbers, ["b", "c", "a", "d", "e"]) == [4, 3, 1, 2, 0]


def test_number_zero_is_a_number():
    assert slice_order(np.zeros(2), [None, 0], ["a", "b"]) == [1, 0]


def test_rounding_of_the_last_digit_does_not_decide():
    positions, orientations = stack(np.array([0.0, 0.0002]), AXIAL)
    assert len(set(slice_positions(positions, orientations))) == 1


def test_gaps():
    below, above = gaps(np.array([0.0, 5.0, 12.0]))
    assert below.tolist() == [0, 5, 7]
    assert above.tolist() == [5, 7, 0]
    assert [g.tolist() for g in gaps(np.array([3.0]))] == [[0], [0]]
