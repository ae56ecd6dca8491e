import numpy as np
import pytest

from beam_pipelines.windowing import Windowing, window_table
from configs import Window
from configs.sections import DEFAULT_WINDOWS

# Hounsfield unit -> grey level by hand: ((x - level) / width + 1/2) * 255, clipped and rounded.
GOLDEN = {
    Window(40, 80): {-32768: 0, -2000: 0, 0: 0, 1: 3, 20: 64, 40: 128, 60: 191, 79: 252, 80: 255},
    Window(80, 200): {-1000: 0, -20: 0, -19: 1, 80: 128, 130: 191, 180: 255, 181: 255},
    Window(600, 2800): {-800: 0, -789: 1, 600: 128, 1300: 191, 2000: 255, 32767: 255},
}


@pytest.mark.parametrize("window", GOLDEN)
def test_golden_grey_levels(window: Window):
    values = np.array([list(GOLDEN[window])], np.int16)
    assert Windowing([window])(values).ravel().tolist() == list(GOLDEN[window].values())


def test_default_windows_are_brain_subdural_and_bone():
    assert list(DEFAULT_WINDOWS) == list(GOLDEN)


def test_table_is_monotone_over_every_value():
    table = window_table(Window(40, 80)).astype(int)
    in_order = table[np.arange(-32768, 32768).astype(np.int16).view(np.uint16)]
    assert (np.diff(in_order) >= 0).all()
    assert (in_order[0], in_order[-1]) == (0, 255)


def test_channels_are_the_windows_in_their_order():
    hounsfield = np.array([[-900, 40], [70, 1000]], np.int16)
    image = Windowing(DEFAULT_WINDOWS)(hounsfield)
    assert image.shape == (2, 2, 3)
    assert image.dtype == np.uint8
    for channel, window in enumerate(DEFAULT_WINDOWS):
        expected = window_table(window)[hounsfield.view(np.uint16)]
        np.testing.assert_array_equal(image[..., channel], expected)


def test_views_that_are_not_contiguous_are_windowed_too():
    hounsfield = np.arange(-200, 200, dtype=np.int16).reshape(20, 20)
    windowing = Windowing(DEFAULT_WINDOWS)
    np.testing.assert_array_equal(
        windowing(hounsfield[::2, ::-1]), windowing(hounsfield)[::2, ::-1]
    )
