"""Order, shuffling and padding of batches."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import trainer_data

from configs import BaseConfig, ExamplesConfig
from trainer import group_files, input_pipeline, shard_files
from trainer.input_pipeline import TrainingOrder

EXAMPLES = ExamplesConfig(image_size=32, channels="windows")
ORDER = TrainingOrder(seed=5, batch_size=8, first_epoch=0, num_epochs=3, shuffle_buffer=16)


@pytest.fixture
def train(tiny_data: Path) -> shard_files.ShardFolder:
    return shard_files.read_examples(str(tiny_data)).train


def _batches(
    folder: shard_files.ShardFolder, order: TrainingOrder, augment: bool = False, **settings: Any
) -> list[Any]:
    tf.random.set_seed(0)
    base = BaseConfig(**{"augment": augment, "positive_share": 0.0, **settings})
    dataset = input_pipeline.training_examples(folder, EXAMPLES, base, order)
    return list(dataset.as_numpy_iterator())


def _images_of_epoch(batches: list[Any], epoch: int, steps: int = 5) -> list[int]:
    part = batches[epoch * steps : (epoch + 1) * steps]
    return [zlib.crc32(image) for images, _ in part for image in images]


def test_an_epoch_has_whole_batches_of_distinct_slices(train: shard_files.ShardFolder) -> None:
    batches = _batches(train, ORDER)
    assert ORDER.steps_per_epoch(train.num_labelled) == 5
    assert len(batches) == 15
    images, labels = batches[0]
    assert images.shape == (8, 32, 32, 3)
    assert images.dtype == np.uint8
    assert labels.shape == (8, 6)
    for epoch in range(3):
        assert len(set(_images_of_epoch(batches, epoch))) == 40


def test_order_changes_with_the_epoch_and_with_the_seed(train: shard_files.ShardFolder) -> None:
    batches = _batches(train, ORDER)
    epochs = [_images_of_epoch(batches, epoch) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    again = _batches(train, ORDER)
    assert _images_of_epoch(again, 2) == epochs[2]
    other = _batches(train, dataclasses.replace(ORDER, seed=6))
    assert _images_of_epoch(other, 0) != epochs[0]


def test_neighbouring_slices_are_torn_apart(train: shard_files.ShardFolder) -> None:
    studies = trainer_data.make_studies("train")
    patient = {
        zlib.crc32(image): number for number, study in enumerate(studies) for image in study.images
    }
    order = [patient[image] for image in _images_of_epoch(_batches(train, ORDER), 0)]
    neighbours = np.mean(np.diff(order) == 0)
    assert neighbours < 0.4  # 0.82 in file order


@pytest.mark.parametrize(
    "settings", [{}, {"augment": True, "window_jitter_hu": 5.0}, {"positive_share": 0.7}]
)
def test_a_resumed_run_sees_the_same(
    train: shard_files.ShardFolder, settings: dict[str, Any]
) -> None:
    whole = _batches(train, ORDER, **settings)
    resumed = _batches(train, dataclasses.replace(ORDER, first_epoch=1), **settings)
    assert len(resumed) == 10
    for (images, labels), (images_again, labels_again) in zip(whole[5:], resumed, strict=True):
        assert np.array_equal(images, images_again)
        assert np.array_equal(labels, labels_again)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_positive_slices_come_as_often_as_asked_for(
    train: shard_files.ShardFolder, share: float
) -> None:
    order = dataclasses.replace(ORDER, num_epochs=40)
    batches = _batches(train, order, positive_share=share)
    assert len(batches) == 40 * 5
    positive = np.mean([labels[:, -1] for _, labels in batches])
    # 1,600 draws; a share's standard error is a hundredth.
    assert abs(positive - share) < 0.04
    assert abs(train.label_counts["any"] / train.num_labelled - share) > 0.04


def test_oversampled_slices_are_labelled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    studies = [trainer_data.make_study(rng, str(i), 6, 32, labelled=i % 2 == 0) for i in range(4)]
    trainer_data.write_examples(tmp_path, "train", studies)
    folder = shard_files.read_folder(str(tmp_path / "train"), "x")
    batches = _batches(folder, TrainingOrder(0, 4, 0, 5, 16), positive_share=0.5)
    assert len(batches) == 15
    assert {float(value) for _, labels in batches for value in labels.ravel()} == {0.0, 1.0}


def test_slices_without_labels_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    studies = [trainer_data.make_study(rng, str(i), 6, 32, labelled=i % 2 == 0) for i in range(4)]
    trainer_data.write_examples(tmp_path, "train", studies)
    folder = shard_files.read_folder(str(tmp_path / "train"), "x")
    assert (folder.num_slices, folder.num_labelled) == (24, 12)
    order = TrainingOrder(0, 4, 0, 2, 16)
    batches = _batches(folder, order)
    assert len(batches) == 6
    assert min(labels.min() for _, labels in batches) == 0


def test_evaluation_reads_every_slice_once_and_pads(train: shard_files.ShardFolder) -> None:
    dataset = input_pipeline.evaluation_images(train, EXAMPLES, 16)
    batches = list(dataset.as_numpy_iterator())
    assert [batch.shape for batch in batches] == [(16, 32, 32, 3)] * 3
    assert dataset.cardinality() == 3
    images = np.concatenate(batches)
    studies = trainer_data.make_studies("train")
    in_file_order = np.concatenate([s.images for s in studies[::2] + studies[1::2]])
    assert np.array_equal(images[:44], in_file_order)
    assert np.all(images[44:] == 0)


def test_sequences_have_no_labels_where_padded(tiny_data: Path) -> None:
    splits = group_files.read_group_sequences(str(tiny_data), [trainer_data.BASE_MODEL_ID])
    order = TrainingOrder(0, 4, 0, 1, 16)
    batches = list(input_pipeline.training_sequences(splits.train, order).as_numpy_iterator())
    assert len(batches) == 2
    for inputs, labels in batches:
        assert inputs["embeddings"].shape == (4, 8, 12)
        assert inputs["slice_features"].shape == (4, 8, 3)
        assert inputs["mask"].dtype == np.uint8
        assert np.array_equal(labels[..., 0] >= 0, inputs["mask"] == 1)


def test_evaluation_sequences_are_padded_to_the_batch(tiny_data: Path) -> None:
    splits = group_files.read_group_sequences(str(tiny_data), [trainer_data.BASE_MODEL_ID])
    dataset = input_pipeline.evaluation_sequences(splits.validation, 3)
    batches = list(dataset.as_numpy_iterator())
    assert [batch["mask"].shape for batch in batches] == [(3, 8)] * 2
    assert batches[1]["mask"].any(axis=1).tolist() == [True, False, False]
