import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.sequences import mask, pad, window_starts

lengths = st.integers(1, 400)
windows = st.integers(2, 80)


@given(lengths, windows)
def test_every_slice_is_in_a_window(num_slices: int, max_to_keep: int):
    starts = window_starts(num_slices, max_to_keep)
    covered = {i for s in starts for i in range(s, min(s + max_to_keep, num_slices))}
    assert covered == set(range(num_slices))


@given(lengths, windows)
def test_windows_are_full_where_the_series_is_long_enough(num_slices: int, max_to_keep: int):
    for start in window_starts(num_slices, max_to_keep):
        assert min(start + max_to_keep, num_slices) - start == min(num_slices, max_to_keep)


@given(lengths, windows)
def test_neighbours_overlap_by_at_least_a_half(num_slices: int, max_to_keep: int):
    starts = window_starts(num_slices, max_to_keep)
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (max_to_keep - steps >= max_to_keep / 2).all()


@pytest.mark.parametrize(
    ("num_slices", "max_to_keep", "starts"),
    [
        (1, 60, [0]),
        (60, 60, [0]),
        (61, 60, [0, 1]),
        (90, 60, [0, 30]),
        (100, 60, [0, 30, 40]),
        (5, 1, [0, 1, 2, 3, 4]),
    ],
)
def test_window_starts(num_slices: int, max_to_keep: int, starts: list[int]):
    assert window_starts(num_slices, max_to_keep) == starts


@pytest.mark.parametrize(("num_slices", "max_to_keep"), [(0, 60), (5, 0)])
def test_nothing_to_cover_is_refused(num_slices: int, max_to_keep: int):
    with pytest.raises(ValueError, match="cannot cover"):
        window_starts(num_slices, max_to_keep)


@given(st.integers(0, 10), st.integers(0, 10), st.integers(1, 4))
def test_padding_keeps_rows_and_adds_zeros(num_real: int, num_padding: int, width: int):
    rows = np.arange(1, num_real * width + 1, dtype=np.float32).reshape(num_real, width)
    length = num_real + num_padding
    padded = pad(rows, length)
    assert padded.dtype == rows.dtype
    assert padded.shape == (length, width)
    np.testing.assert_array_equal(padded[mask(num_real, length) == 1], rows)
    assert not padded[mask(num_real, length) == 0].any()


def test_mask():
    assert mask(3, 5).tolist() == [1, 1, 1, 0, 0]
    assert mask(3, 5).dtype == np.uint8


def test_too_many_rows_are_refused():
    with pytest.raises(ValueError, match="3 rows do not fit into 2"):
        pad(np.zeros((3, 1)), 2)
