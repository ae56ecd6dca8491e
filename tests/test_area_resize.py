import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines import area_resize
from beam_pipelines.area_resize import can_shrink, pack, shrink


def reference(stored: np.ndarray, grey: np.ndarray, size: int) -> np.ndarray:
    """Windowed pixel by pixel, then averaged by OpenCV."""
    windowed = grey[stored.view(np.uint16)]
    return cv2.resize(windowed, (size, size), interpolation=cv2.INTER_AREA)


def noise(side: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-(1 << 15), 1 << 15, (side, side))
    return values.astype(np.int16)


def any_grey(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1 << 16, 3)).astype(np.uint8)


@given(st.integers(2, 40), st.integers(0, 10))
@settings(max_examples=50, deadline=None)
def test_half_the_side_is_opencvs_result(half: int, seed: int):
    stored, grey = noise(2 * half, seed), any_grey(seed)
    np.testing.assert_array_equal(shrink(stored, pack(grey), half), reference(stored, grey, half))


@given(st.integers(4, 90), st.floats(0, 1), st.integers(0, 10))
@settings(max_examples=100, deadline=None)
def test_any_other_size_is_within_a_grey_level_of_it(side: int, part: float, seed: int):
    size = min(side - 1, side // 2 + 1 + int(part * (side - side // 2 - 1)))
    stored, grey = noise(side, seed), any_grey(seed)
    difference = shrink(stored, pack(grey), size).astype(int) - reference(stored, grey, size)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 127, 255])
@pytest.mark.parametrize("size", [256, 299, 300, 383, 511])
def test_a_flat_image_keeps_its_level(level: int, size: int):
    """Rounded weights add up to one."""
    grey = np.full((1 << 16, 3), level, np.uint8)
    assert (shrink(noise(512, 0), pack(grey), size) == level).all()


def test_bytes_that_cannot_be_written_are_read():
    stored = noise(16, 1)
    frozen = np.frombuffer(stored.tobytes(), np.int16).reshape(16, 16)
    np.testing.assert_array_equal(
        shrink(frozen, pack(any_grey(1)), 9), shrink(stored, pack(any_grey(1)), 9)
    )


@pytest.mark.parametrize(("side", "function"), [(18, "_halve"), (17, "_average")])
def test_any_array_takes_the_one_compiled_function(side: int, function: str):
    """A part of a larger array, a copy and bytes of a file; compiling takes longer than a slice."""
    part = noise(32, 2)[3 : 3 + side, 5 : 5 + side]
    frozen = np.frombuffer(part.tobytes(), np.int16).reshape(side, side)
    packed = pack(any_grey(2))
    expected = shrink(part.copy(), packed, 9)
    np.testing.assert_array_equal(shrink(part, packed, 9), expected)
    np.testing.assert_array_equal(shrink(frozen, packed, 9), expected)
    assert len(getattr(area_resize, function).signatures) == 1


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 8), 8), ((8, 8), 3), ((8, 10), 6), ((8, 8), 9), ((3, 3), 1)]
)
def test_other_shapes_are_refused(shape: tuple[int, int], size: int):
    assert not can_shrink(shape, size)
    with pytest.raises(ValueError, match="cannot shrink"):
        shrink(np.zeros(shape, np.int16), pack(any_grey(0)), size)
