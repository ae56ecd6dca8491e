"""The sequences of a group's members, read as one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import trainer_data

from beam_pipelines import schema
from beam_pipelines.errors import UserError
from trainer import group_files, input_pipeline, shard_files
from trainer.input_pipeline import TrainingOrder

ORDER = TrainingOrder(seed=5, batch_size=2, first_epoch=0, num_epochs=2, shuffle_buffer=16)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of a group of three; tests must not write into it."""
    root = tmp_path_factory.mktemp("group")
    trainer_data.write_group_sequences(root, 3)
    return root


IDS = [f"{trainer_data.GROUP_ID}-fold{fold}" for fold in range(3)]


def test_members_together_hold_each_train_study_once(data_dir: Path) -> None:
    splits = group_files.read_group_sequences(str(data_dir), IDS)
    studies = trainer_data.make_studies("train")
    found = [schema.decode_sequence(record).patient_id for record in splits.train.records()]
    assert sorted(found) == sorted(study.slices[0].patient_id for study in studies)
    assert splits.train.num_sequences == splits.train.num_patients == len(studies)
    assert splits.train.num_slices == sum(len(study.slices) for study in studies)
    positives = np.concatenate([study.labels for study in studies]).sum(axis=0)
    assert list(splits.train.label_counts.values()) == positives.tolist()


def test_validation_is_there_once_a_member_and_counted_once(data_dir: Path) -> None:
    validation = group_files.read_group_sequences(str(data_dir), IDS).validation
    studies = trainer_data.make_studies("validation")
    assert validation.num_sequences == len(list(validation.records())) == 3 * len(studies)
    assert validation.num_patients == len(studies)
    assert validation.num_slices == sum(len(study.slices) for study in studies)


def test_a_single_model_is_read_as_it_is(tiny_data: Path) -> None:
    base = trainer_data.BASE_MODEL_ID
    found = group_files.read_group_sequences(str(tiny_data), [base])
    for split, folder in (("train", found.train), ("validation", found.validation)):
        path = tiny_data / "sequences" / base / split
        assert folder == shard_files.read_folder(str(path), "")
    assert found.train.path_folds == ()


def test_a_member_alone_has_no_fold(data_dir: Path) -> None:
    found = group_files.read_group_sequences(str(data_dir), IDS[2:])
    assert found.train.path_folds == found.validation.path_folds == ()
    # Read as any folder is, it says whose embeddings it holds.
    folder = shard_files.read_folder(str(data_dir / "sequences" / IDS[2] / "validation"), "")
    assert folder.path_folds == (2, 2)


def test_every_sequence_comes_with_its_fold(data_dir: Path) -> None:
    splits = group_files.read_group_sequences(str(data_dir), IDS)
    studies = trainer_data.make_studies("train")
    expected = {
        tuple(sequence.embeddings[0]): fold
        for fold in range(3)
        for sequence in trainer_data.make_sequences(studies[fold::3])
        for sequence in [
            dataclasses.replace(sequence, embeddings=np.roll(sequence.embeddings, fold, 1))
        ]
    }
    batches = list(input_pipeline.training_sequences(splits.train, ORDER).as_numpy_iterator())
    epoch = len(batches) // 2
    assert epoch == 4
    for part in (batches[:epoch], batches[epoch:]):
        found = {
            tuple(embeddings[0]): fold
            for inputs, _ in part
            for embeddings, fold in zip(inputs["embeddings"], inputs["fold"], strict=True)
        }
        assert found == expected
        assert {inputs["fold"].dtype for inputs, _ in part} == {np.dtype(np.int32)}


def _folds(order: TrainingOrder, data_dir: Path) -> list[list[float]]:
    train = group_files.read_group_sequences(str(data_dir), IDS).train
    batches = input_pipeline.training_sequences(train, order).as_numpy_iterator()
    return [[*inputs["fold"], *inputs["embeddings"][:, 0, 0]] for inputs, _ in batches]


def test_members_are_shuffled_the_same_way_with_the_same_seed(data_dir: Path) -> None:
    first = _folds(ORDER, data_dir)
    assert first == _folds(ORDER, data_dir)
    assert first != _folds(dataclasses.replace(ORDER, seed=6), data_dir)
    assert first[:4] != first[4:]
    assert first[4:] == _folds(dataclasses.replace(ORDER, first_epoch=1), data_dir)
    # Not one member after the other.
    folds = [fold for batch in first[:4] for fold in batch[:2]]
    assert folds != sorted(folds)


def test_evaluation_goes_from_member_to_member(data_dir: Path) -> None:
    validation = group_files.read_group_sequences(str(data_dir), IDS).validation
    batches = list(input_pipeline.evaluation_sequences(validation, 5).as_numpy_iterator())
    folds = np.concatenate([batch["fold"] for batch in batches])
    assert folds.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 3
    assert np.concatenate([batch["mask"] for batch in batches]).any(axis=1).sum() == 12


def test_sequences_of_slices_seen_in_training_are_refused(tmp_path: Path) -> None:
    trainer_data.write_group_sequences(tmp_path, 2)
    studies = trainer_data.make_studies("train")
    settings = {"model_folds": 2, "model_fold": 1}
    trainer_data.write_sequences(tmp_path, "train", studies, IDS[1], **settings)
    with pytest.raises(UserError, match="group1-fold1/train: not fold 1 of 2 of the train split"):
        group_files.read_group_sequences(str(tmp_path), IDS[:2])


def test_members_must_be_made_alike(tmp_path: Path) -> None:
    trainer_data.write_group_sequences(tmp_path, 2)
    studies = trainer_data.make_studies("validation")
    settings = {"model_folds": 2, "model_fold": 1}
    trainer_data.write_sequences(tmp_path, "validation", studies, IDS[1], 5, **settings)
    with pytest.raises(UserError, match=r"fold1/validation: max_to_keep is 5, but 8 in .*; run"):
        group_files.read_group_sequences(str(tmp_path), IDS[:2])


def test_a_group_is_chosen_by_its_id(tmp_path: Path) -> None:
    trainer_data.write_group_sequences(tmp_path, 2)
    assert shard_files.choose_base_model_id(str(tmp_path), None) == "group1"
    assert shard_files.choose_base_model_id(str(tmp_path), "group1") == "group1"
    assert shard_files.choose_base_model_id(str(tmp_path), IDS[1]) == IDS[1]
    with pytest.raises(UserError, match="no sequences of base model '1'; there are: group1; run"):
        shard_files.choose_base_model_id(str(tmp_path), "1")
