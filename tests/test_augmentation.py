"""Augmentation: stateless, the same in a graph as eagerly, and air comes in."""

import numpy as np
import tensorflow as tf

from trainer import augmentation

SEED = tf.constant([3, 7], tf.int64)


def _images(count: int = 4, size: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_seed_alone_decides() -> None:
    images = tf.constant(_images())
    first = augmentation.augment(images, SEED).numpy()
    tf.random.set_seed(99)
    assert np.array_equal(augmentation.augment(images, SEED).numpy(), first)
    other = augmentation.augment(images, SEED + 1).numpy()
    assert not np.array_equal(other, first)
    assert first.shape == images.shape
    assert first.dtype == np.uint8


def test_the_same_inside_tf_data() -> None:
    images = tf.constant(_images())
    dataset = tf.data.Dataset.from_tensors(images).map(lambda x: augmentation.augment(x, SEED))
    assert dataset.element_spec.shape == images.shape
    (inside,) = list(dataset.as_numpy_iterator())
    assert np.array_equal(inside, augmentation.augment(images, SEED).numpy())


def test_every_image_of_a_batch_moves_in_its_own_way() -> None:
    images = tf.constant(np.repeat(_images(1), 6, axis=0))
    moved = augmentation.augment(images, SEED).numpy()
    assert len({image.tobytes() for image in moved}) == 6


def test_warp_by_the_identity_and_by_a_flip() -> None:
    images = _images(2)
    identity = np.array([[[1, 0, 0], [0, 1, 0]]] * 2, np.float32)
    assert np.array_equal(augmentation.warp(images, identity), images)
    flip = np.array([[[-1, 0, 23], [0, 1, 0]]] * 2, np.float32)
    assert np.array_equal(augmentation.warp(images, flip), images[:, :, ::-1])


def test_what_comes_in_is_air() -> None:
    shift = np.array([[[1, 0, 10], [0, 1, 0]]], np.float32)
    moved = augmentation.warp(_images(1), shift)
    assert np.all(moved[:, :, 14:] == augmentation.AIR)
    assert np.all(moved[:, :, :14] > 0)


def test_maps_stay_within_their_limits() -> None:
    size, count = 64, 2000
    maps = augmentation.draw_maps(count, size, SEED).numpy()
    scales = np.sqrt(np.abs(np.linalg.det(maps[:, :, :2])))
    assert np.all(np.abs(np.log(scales)) <= augmentation.MAX_LOG_SCALE + 1e-5)
    center = np.array([(size - 1) / 2] * 2 + [1.0])
    shifts = maps @ center - center[:2]
    assert np.all(np.abs(shifts) <= augmentation.MAX_SHIFT * size + 1e-3)
    angles = np.arctan2(maps[:, 1, 0], maps[:, 1, 1])
    assert np.all(np.abs(angles) <= augmentation.MAX_ROTATION + 1e-5)
    flipped = np.linalg.det(maps[:, :, :2]) < 0
    assert 0.45 < flipped.mean() < 0.55
