import numpy as np
import pytest
from synthetic import random_hounsfield

from beam_pipelines.area_resize import can_shrink
from beam_pipelines.head_box import Box
from beam_pipelines.images import resize, to_square
from beam_pipelines.pixels import Rescale, to_hounsfield
from beam_pipelines.rendering import Renderer
from beam_pipelines.windowing import Windowing
from configs.sections import DEFAULT_WINDOWS

RESCALES = [
    Rescale(16, True, 1.0, -1024.0),
    Rescale(12, False, 1.0, -1024.0),
    Rescale(12, False, 1.0, 0.0),
    Rescale(16, True, 2.5, 0.5, (-3024.0,)),
]


@pytest.mark.parametrize("rescale", RESCALES)
@pytest.mark.parametrize("shape", [(64, 64), (64, 48), (20, 33), (300, 300)])
@pytest.mark.parametrize("size", [16, 32, 40, 64, 100])
def test_tables_do_what_arithmetic_does(rescale: Rescale, shape: tuple[int, int], size: int):
    stored = random_hounsfield(3, *shape)
    stored[0, :3] = (-2000, -3024, 32767)
    image = Renderer(DEFAULT_WINDOWS, size)(stored, rescale)
    windowed = Windowing(DEFAULT_WINDOWS)(to_hounsfield(stored, rescale))
    expected = resize(to_square(windowed), size)
    assert image.shape == (size, size, 3)
    # One grey level: the fused way rounds weights, see area_resize.
    assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("rescale", RESCALES)
@pytest.mark.parametrize(
    ("box", "fast"),
    [
        (Box(0, 0, 64, 80), False),
        (Box(3, 5, 58, 60), True),  # 55 to 40 pixels
        (Box(10, 0, 51, 41), True),  # 41 to 40
        (Box(1, 2, 41, 42), False),  # the size it should have
        (Box(7, 8, 30, 31), False),  # enlarged
        (Box(0, 11, 64, 80), False),  # shorter than a square
    ],
)
def test_a_box_renders_its_part_of_the_slice(rescale: Rescale, box: Box, fast: bool):
    stored = random_hounsfield(4, 64, 80)
    part = stored[box.top : box.bottom, box.left : box.right]
    assert can_shrink(part.shape, 40) == fast
    image = Renderer(DEFAULT_WINDOWS, 40)(stored, rescale, box)
    windowed = Windowing(DEFAULT_WINDOWS)(to_hounsfield(np.ascontiguousarray(part), rescale))
    expected = resize(to_square(windowed), 40)
    assert image.shape == (40, 40, 3)
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_a_box_of_half_the_side_is_averaged_exactly():
    stored = random_hounsfield(4, 100, 100)
    image = Renderer(DEFAULT_WINDOWS, 40)(stored, RESCALES[0], Box(9, 17, 89, 97))
    windowed = Windowing(DEFAULT_WINDOWS)(to_hounsfield(stored, RESCALES[0]))
    np.testing.assert_array_equal(image, resize(windowed[9:89, 17:97], 40))
