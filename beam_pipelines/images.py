"""Windowed slices to encoded square images of one size."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import cv2
import numpy as np

# cv2 would start a thread a core for each call; the pipelines run one worker a core already.
cv2.setNumThreads(1)

T = TypeVar("T")


def to_square(image: np.ndarray) -> np.ndarray:
    """Pads the shorter side with black, evenly, so that the head keeps its shape.

    Args:
        image: uint8 (rows, columns, channels).

    Returns:
        uint8 (side, side, channels) with side = max(rows, columns).
    """
    rows, columns = image.shape[:2]
    if rows == columns:
        return image
    side = max(rows, columns)
    top, left = (side - rows) // 2, (side - columns) // 2
    square = np.zeros((side, side, *image.shape[2:]), image.dtype)
    square[top : top + rows, left : left + columns] = image
    return square


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes a square image to (size, size, channels).

    Shrinking averages over areas, which keeps a thin bleed visible where sampling would drop it;
    enlarging interpolates.
    """
    if image.shape[0] == size:
        return image
    method = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=method)


def with_neighbours(items: Iterable[T]) -> Iterator[tuple[T, T, T]]:
    """Each item between the one before and the one after; holds three at a time.

    At the ends the item itself stands in for the one that is missing: 1, 2 gives (1, 1, 2) and
    (1, 2, 2).
    """
    iterator = iter(items)
    try:
        before = item = next(iterator)
    except StopIteration:
        return
    for after in iterator:
        yield before, item, after
        before, item = item, after
    yield before, item, item


def compose(channels: str, below: np.ndarray, image: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The image that is stored of a slice.

    Args:
        channels: windows, neighbours or both; see `ExamplesConfig.channels`.
        below: uint8 (size, size, 3), the slice below in three windows.
        image: the slice itself, alike.
        above: the slice above, alike.

    Returns:
        uint8 (size, size, 3); for both (2 * size, size, 3), the windows above the neighbours, which
        `schema.parse_examples` puts behind one another.

    Raises:
        ValueError: other channels.
    """
    if channels == "windows":
        return image
    neighbours = np.stack([plane[..., 0] for plane in (below, image, above)], axis=2)
    if channels == "neighbours":
        return neighbours
    if channels == "both":
        return np.concatenate([image, neighbours])
    raise ValueError(f"channels {channels!r}: give windows, neighbours or both")


def encode(image: np.ndarray, image_format: str, jpeg_quality: int = 95) -> bytes:
    """Encodes an image so that decoders give its channels back in their order.

    Args:
        image: uint8 (height, width), or (height, width, 3).
        image_format: jpeg or png. JPEG keeps all three channels at full resolution (4:4:4): they
            are windows, not colours, and 4:2:0 would cost up to 8 dB.
        jpeg_quality: 1 to 100.

    Raises:
        ValueError: another format, or the encoder failed.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if image_format == "jpeg":
        options = [
            cv2.IMWRITE_JPEG_QUALITY,
            jpeg_quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ]
        done, data = cv2.imencode(".jpg", image, options)
    elif image_format == "png":
        done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    else:
        raise ValueError(f"image format {image_format!r}: give jpeg or png")
    if not done:
        raise ValueError(f"cannot encode an image of shape {image.shape} as {image_format}")
    return data.tobytes()
