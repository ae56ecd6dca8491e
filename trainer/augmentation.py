"""Random flips, rotations, shifts and scales of training images.

Stateless: the same seed gives the same images. What is random is drawn by TensorFlow, from the
seed alone; the pixels are moved by OpenCV, which is ten times as fast on a CPU as TensorFlow's
own projective transform (measured at 256 px on one core: 3,000 against 180 images a second).
"""

import math
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

# A head is scanned upright and centred within a few centimetres; more than this is not seen.
MAX_ROTATION = math.radians(15.0)
MAX_SHIFT = 0.06  # share of the image's side
MAX_LOG_SCALE = math.log(1.12)
# Black, the low end of every window: air.
AIR = 0


def augment(images: Any, seed: Any) -> Any:
    """Moves every image of a batch by its own random affine map; what comes in is air.

    Args:
        images: uint8 tensor of shape (batch, size, size, 3).
        seed: int64 tensor of shape (2,).

    Returns:
        A uint8 tensor of the same shape.
    """
    size = images.shape[1]
    maps = draw_maps(tf.shape(images)[0], size, seed)
    moved = tf.numpy_function(warp, [images, maps], tf.uint8, stateful=False)
    return tf.ensure_shape(moved, images.shape)


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
        images: uint8 of shape (batch, size, size, 3).
        maps: float32 of shape (batch, 2, 3), from output to input pixels.

    Returns:
        uint8 of the shape of `images`.
    """
    moved = np.empty_like(images)
    size = (images.shape[2], images.shape[1])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for image, matrix, out in zip(images, maps, moved, strict=True):
        # OpenCV moves four channels twice as fast as three.
        four = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
        four = cv2.warpAffine(four, matrix, size, flags=flags, borderValue=(AIR,) * 4)
        cv2.cvtColor(four, cv2.COLOR_BGRA2BGR, dst=out)
    return moved
