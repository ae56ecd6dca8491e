import numpy as np
import pytest
from synthetic import random_hounsfield

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
