from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.images import compose, encode, resize, to_square, with_neighbours


def decode(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), 4)


def three_channels(size: int = 48) -> np.ndarray:
    """Channels that say where they are: a ramp to the right, a ramp downwards, a disc."""
    ramp = np.linspace(0, 255, size)
    rows, columns = np.mgrid[:size, :size] - size / 2
    disc = np.where(rows**2 + columns**2 < (size / 3) ** 2, 200, 20)
    return np.stack([np.tile(ramp, (size, 1)), np.tile(ramp, (size, 1)).T, disc], 2).astype("u1")


@given(st.integers(1, 9), st.integers(1, 9))
def test_square_holds_the_image_in_its_middle(rows: int, columns: int):
    image = np.arange(1, rows * columns * 3 + 1, dtype=np.uint8).reshape(rows, columns, 3)
    square = to_square(image)
    side = max(rows, columns)
    assert square.shape == (side, side, 3)
    top, left = (side - rows) // 2, (side - columns) // 2
    np.testing.assert_array_equal(square[top : top + rows, left : left + columns], image)
    assert int(square.sum()) == int(image.sum())


def test_shrinking_averages_areas():
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0] = (200, 100, 40)
    small = resize(image, 2)
    assert small[0, 0].tolist() == [50, 25, 10]
    assert not small[1:].any()


@pytest.mark.parametrize("size", [16, 48, 100])
def test_resize_gives_the_size(size: int):
    assert resize(three_channels(), size).shape == (size, size, 3)


@pytest.mark.parametrize(
    ("items", "expected"),
    [("", []), ("a", ["aaa"]), ("ab", ["aab", "abb"]), ("abcd", ["aab", "abc", "bcd", "cdd"])],
)
def test_items_come_with_their_neighbours(items: str, expected: list[str]):
    assert ["".join(three) for three in with_neighbours(items)] == expected


def test_neighbours_are_taken_one_ahead():
    taken = []

    def items() -> Iterator[int]:
        for i in range(9):
            taken.append(i)
            yield i

    for _, item, after in with_neighbours(items()):
        assert taken[-1] == after <= item + 1


def test_channels_are_composed():
    below, image, above = (
        np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype("u1") for i in range(3)
    )
    assert compose("windows", below, image, above) is image
    neighbours = compose("neighbours", below, image, above)
    for channel, item in enumerate((below, image, above)):
        np.testing.assert_array_equal(neighbours[..., channel], item[..., 0])
    both = compose("both", below, image, above)
    np.testing.assert_array_equal(both[:8], image)
    np.testing.assert_array_equal(both[8:], neighbours)
    with pytest.raises(ValueError, match="channels 'colours': give windows, neighbours or both"):
        compose("colours", below, image, above)


def test_png_is_lossless_and_keeps_the_channels_order():
    np.testing.assert_array_equal(decode(encode(three_channels(), "png")), three_channels())


def test_jpeg_keeps_the_channels_order():
    difference = np.abs(decode(encode(three_channels(), "jpeg")).astype(int) - three_channels())
    assert difference.mean(axis=(0, 1)).max() < 3


def test_jpeg_has_every_channel_at_full_resolution():
    """The start-of-frame segment of 4:4:4 says 1 x 1 for each of three components."""
    data = encode(three_channels(), "jpeg")
    frame = data.index(b"\xff\xc0")
    assert data[frame + 9] == 3
    assert [data[frame + 11 + 3 * i] for i in range(3)] == [0x11] * 3


def test_jpeg_quality_counts():
    assert len(encode(three_channels(), "jpeg", 30)) < len(encode(three_channels(), "jpeg", 95))


def test_tensorflow_decodes_what_is_encoded():
    import tensorflow as tf

    image = three_channels()
    png = tf.io.decode_image(encode(image, "png"), channels=3).numpy()
    np.testing.assert_array_equal(png, image)
    jpeg = tf.io.decode_image(encode(image, "jpeg"), channels=3).numpy()
    assert np.abs(jpeg.astype(int) - image).mean(axis=(0, 1)).max() < 3


def test_grey_images_can_be_encoded():
    grey = three_channels()[..., 0]
    decoded = cv2.imdecode(np.frombuffer(encode(grey, "png"), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, grey)


def test_another_format_is_refused():
    with pytest.raises(ValueError, match="image format 'tiff': give jpeg or png"):
        encode(three_channels(), "tiff")
