"""Augmentation: stateless, the same in a graph as eagerly, and air comes in."""

import numpy as np
import tensorflow as tf

from configs import ExamplesConfig, Window
from trainer import augmentation

SEED = tf.constant([3, 7], tf.int64)
WINDOWS = ExamplesConfig().windows
AUGMENT = augmentation.Augmentation(True, 4.0, WINDOWS)


def _images(count: int = 4, size: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_seed_alone_decides() -> None:
    images = tf.constant(_images())
    first = AUGMENT(images, SEED).numpy()
    tf.random.set_seed(99)
    assert np.array_equal(AUGMENT(images, SEED).numpy(), first)
    other = AUGMENT(images, SEED + 1).numpy()
    assert not np.array_equal(other, first)
    assert first.shape == images.shape
    assert first.dtype == np.uint8


def test_the_same_inside_tf_data() -> None:
    images = tf.constant(_images())
    dataset = tf.data.Dataset.from_tensors(images).map(lambda x: AUGMENT(x, SEED))
    assert dataset.element_spec.shape == images.shape
    (inside,) = list(dataset.as_numpy_iterator())
    assert np.array_equal(inside, AUGMENT(images, SEED).numpy())


def test_every_image_of_a_batch_moves_in_its_own_way() -> None:
    images = tf.constant(np.repeat(_images(1), 6, axis=0))
    moved = AUGMENT(images, SEED).numpy()
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


def test_six_channels_move_together() -> None:
    both = np.concatenate([_images(3), _images(3)], axis=-1)
    augment = augmentation.Augmentation(True, 0.0, WINDOWS * 2)
    moved = augment(tf.constant(both), SEED).numpy()
    assert np.array_equal(moved[..., :3], moved[..., 3:])
    three = augmentation.Augmentation(True, 0.0, WINDOWS)(tf.constant(_images(3)), SEED)
    assert np.array_equal(moved[..., :3], three.numpy())


def test_nothing_is_done_where_nothing_is_asked_for() -> None:
    augment = augmentation.Augmentation(False, 0.0, WINDOWS)
    assert not augment.changes
    assert np.array_equal(augment(tf.constant(_images()), SEED).numpy(), _images())


def _seen_through(hounsfield: np.ndarray, level: float, width: float) -> np.ndarray:
    return np.clip(((hounsfield - level) / width + 0.5) * 255.0, 0.0, 255.0)


def test_jitter_is_another_window_on_the_same_hounsfield_units() -> None:
    tables = augmentation.draw_tables(50, WINDOWS, 5.0, SEED).numpy()
    assert (tables.shape, tables.dtype) == ((50, 256, 3), np.uint8)
    draws = tf.random.stateless_uniform([2, 50, 1, 1], SEED, -1.0, 1.0).numpy().reshape(2, 50)
    for table, shift_hu, log_width in zip(tables, 5.0 * draws[0], 5.0 / 80 * draws[1], strict=True):
        for channel, window in enumerate(WINDOWS):
            # What is seen inside the stored window, in a window whose level is lower by the shift.
            hounsfield = window.level + window.width * (np.arange(3, 253) / 255.0 - 0.5)
            seen = _seen_through(
                hounsfield, window.level - shift_hu, window.width * np.exp(log_width)
            )
            assert np.abs(table[3:253, channel] - seen).max() <= 0.51


def test_jitter_leaves_air_and_bone_cut_off() -> None:
    tables = augmentation.draw_tables(200, WINDOWS, 8.0, SEED).numpy()
    assert np.all(tables[:, :3] == 0)
    assert np.all(tables[:, 253:] == 255)
    assert np.all(np.diff(tables.astype(int), axis=1) >= 0)
    brain = tables[:, 128, 0].astype(int) - 128
    bone = tables[:, 128, 2].astype(int) - 128
    # 8 of 80 units are a tenth of the grey levels, 8 of 2800 less than one.
    assert 20 < np.abs(brain).max() <= 29
    assert np.abs(bone).max() <= 1


def test_look_up_takes_each_channel_from_its_own_table() -> None:
    images = _images(2)
    tables = np.random.default_rng(1).integers(0, 256, (2, 256, 3), dtype=np.uint8)
    found = augmentation.look_up(images, tables)
    for index in range(2):
        for channel in range(3):
            expected = tables[index, images[index, ..., channel], channel]
            assert np.array_equal(found[index, ..., channel], expected)


def test_wide_windows_are_hardly_changed() -> None:
    wide = (Window(0.0, 4000.0),) * 3
    tables = augmentation.draw_tables(10, wide, 4.0, SEED).numpy().astype(int)
    assert np.abs(tables[:, 3:253] - np.arange(3, 253)[:, np.newaxis]).max() <= 1


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
