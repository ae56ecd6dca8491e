"""Random flips, rotations, shifts, scales and windows of training images.

Stateless: the same seed gives the same images. What is random is drawn by TensorFlow, from the
seed alone; the pixels are moved by OpenCV, which is ten times as fast on a CPU as TensorFlow's
own projective transform (measured at 256 px on one core: 3,000 against 180 images a second).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from configs import Window

# A head is scanned upright and centred within a few centimetres; more than this is not seen.
MAX_ROTATION = math.radians(15.0)
MAX_SHIFT = 0.06  # share of the image's side
MAX_LOG_SCALE = math.log(1.12)
# Black, the low end of every window: air.
AIR = 0
# Stored JPEGs hold what a window cuts off within a grey level or two.
_CUT_OFF = 2.0


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images.

    Attributes:
        move: whether they are flipped, rotated, shifted and scaled.
        window_jitter_hu: largest shift of all Hounsfield units; 0 for none.
        windows: the window of each channel.
    """

    move: bool
    window_jitter_hu: float
    windows: tuple[Window, ...]

    @property
    def changes(self) -> bool:
        """Whether anything is done at all."""
        return self.move or self.window_jitter_hu > 0

    def __call__(self, images: Any, seed: Any) -> Any:
        """Changes every image of a batch in its own way; what comes in from outside is air.

        Args:
            images: uint8 tensor of shape (batch, size, size, num_channels).
            seed: int64 tensor of shape (2,).

        Returns:
            A uint8 tensor of the same shape.
        """
        count = tf.shape(images)[0]
        changed = images
        if self.window_jitter_hu > 0:
            # Another seed than that of the maps: the first draw of both would be the same.
            folded = tf.random.experimental.stateless_fold_in(seed, 1)
            tables = draw_tables(count, self.windows, self.window_jitter_hu, folded)
            changed = tf.numpy_function(look_up, [changed, tables], tf.uint8, stateful=False)
        if self.move:
            maps = draw_maps(count, images.shape[1], seed)
            changed = tf.numpy_function(warp, [changed, maps], tf.uint8, stateful=False)
        return tf.ensure_shape(changed, images.shape)


def draw_tables(count: Any, windows: Sequence[Window], jitter_hu: float, seed: Any) -> Any:
    """Draws grey-level tables that show an image as if its windows were a little different.

    A pixel of grey g in a window of width W is level + W (g / 255 - 1/2) Hounsfield units. All
    channels of an image are shifted by the same number of units, as by a scanner whose calibration
    is off, and their widths change by the same factor. What the stored window has cut off stays
    cut off, because its Hounsfield units are not known, and with it the two levels beside, into
    which a JPEG may have moved it.

    Args:
        count: how many images.
        windows: the window of each channel.
        jitter_hu: largest shift; the logarithm of the factor is at most `jitter_hu` divided by the
            first window's width.
        seed: int64 tensor of shape (2,).

    Returns:
        uint8 of shape (count, 256, num_channels).
    """
    draws = tf.random.stateless_uniform([2, count, 1, 1], seed, -1.0, 1.0)
    shift = draws[0] * jitter_hu * tf.constant([255.0 / window.width for window in windows])
    factor = tf.exp(draws[1] * jitter_hu / windows[0].width)
    grey = tf.range(256.0)[:, tf.newaxis]
    table = tf.clip_by_value((grey - 127.5 + shift) / factor + 127.5, 0.0, 255.0)
    table = tf.where(grey <= _CUT_OFF, 0.0, tf.where(grey >= 255.0 - _CUT_OFF, 255.0, table))
    return tf.cast(tf.round(table), tf.uint8)


def look_up(images: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Replaces grey levels.

    Args:
        images: uint8 of shape (batch, size, size, num_channels).
        tables: uint8 of shape (batch, 256, num_channels).

    Returns:
        uint8 of the shape of `images`.
    """
    changed = np.empty_like(images)
    for image, table, out in zip(images, tables, changed, strict=True):
        out[...] = cv2.LUT(image, np.ascontiguousarray(table[np.newaxis]))
    return changed


def draw_maps(count: Any, size: int, seed: Any) -> Any:
    """Draws affine maps from output to input pixels.

    Args:
        count: how many.
        size: height and width of the images.
        seed: int64 tensor of shape (2,).

    Returns:
        float32 of shape (count, 2, 3): `input_xy = map[:, :2] @ output_xy + map[:, 2]`.
    """
    draws = tf.random.stateless_uniform([5, count], seed, -1.0, 1.0)
    angle, log_scale = draws[0] * MAX_ROTATION, draws[1] * MAX_LOG_SCALE
    shift = draws[2:4] * MAX_SHIFT * size
    flip = tf.where(draws[4] < 0, -1.0, 1.0)
    cos, sin = tf.cos(angle) * tf.exp(log_scale), tf.sin(angle) * tf.exp(log_scale)
    # Around the centre of the middle pixels, so that a flip alone maps column i to size - 1 - i.
    center = (size - 1) / 2
    linear = tf.stack([tf.stack([flip * cos, -flip * sin], -1), tf.stack([sin, cos], -1)], -2)
    offset = center - tf.reduce_sum(linear, -1) * center + tf.transpose(shift)
    return tf.concat([linear, offset[..., tf.newaxis]], -1)


def warp(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Moves images by affine maps, bilinearly.

    Args:
        images: uint8 of shape (batch, size, size, num_channels), channels in threes.
        maps: float32 of shape (batch, 2, 3), from output to input pixels.

    Returns:
        uint8 of the shape of `images`.
    """
    moved = np.empty_like(images)
    size = (images.shape[2], images.shape[1])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for image, matrix, out in zip(images, maps, moved, strict=True):
        for first in range(0, images.shape[-1], 3):
            # OpenCV moves four channels twice as fast as three.
            three = np.ascontiguousarray(image[..., first : first + 3])
            four = cv2.cvtColor(three, cv2.COLOR_BGR2BGRA)
            four = cv2.warpAffine(four, matrix, size, flags=flags, borderValue=(AIR,) * 4)
            out[..., first : first + 3] = four[..., :3]
    return moved
