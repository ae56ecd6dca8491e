"""Manifests: what the trainer takes from them, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import pytest
import trainer_data

from beam_pipelines.errors import UserError
from configs import Config, ExamplesConfig
from trainer import group_files, shard_files


def test_read_examples(tiny_data: Path) -> None:
    splits = shard_files.read_examples(str(tiny_data))
    assert splits.train.num_patients == 8
    assert splits.train.num_slices == splits.train.num_labelled == 44
    assert len(splits.train.paths) == 2
    assert len(list(splits.train.records())) == 44
    assert splits.fingerprints == {"train": "examples-train", "validation": "examples-validation"}


def test_label_priors_are_shares_of_the_train_split(tiny_data: Path) -> None:
    train = shard_files.read_examples(str(tiny_data)).train
    priors = shard_files.label_priors(train)
    assert priors["any"] == train.label_counts["any"] / 44


def test_a_folder_without_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: no manifest.json, .*; run python -m beam_pipe"):
        shard_files.read_examples(str(tmp_path))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_patients_is_refused(tmp_path: Path, split: str) -> None:
    for name in ("train", "validation"):
        studies = trainer_data.make_studies(name, num_patients=0 if name == split else 2)
        trainer_data.write_examples(tmp_path, name, studies)
    with pytest.raises(UserError, match=f"{split}: too few patients .* received 0 patients"):
        shard_files.read_examples(str(tmp_path))


def test_base_model_id_is_the_only_one_or_must_be_said(tmp_path: Path) -> None:
    root = tmp_path / "sequences"
    with pytest.raises(UserError, match="no sequences: run"):
        shard_files.choose_base_model_id(str(tmp_path), None)
    (root / "11").mkdir(parents=True)
    assert shard_files.choose_base_model_id(str(tmp_path), None) == "11"
    with pytest.raises(UserError, match="no sequences of base model '12'; there are: 11"):
        shard_files.choose_base_model_id(str(tmp_path), "12")
    (root / "22").mkdir()
    with pytest.raises(UserError, match="several base models: 11, 22"):
        shard_files.choose_base_model_id(str(tmp_path), None)


def test_the_config_says_how_the_shards_were_made(tiny_data: Path) -> None:
    examples = shard_files.read_examples(str(tiny_data)).train
    config = shard_files.with_settings_of(examples, Config())
    assert config.examples.image_size == 32
    sequences = group_files.read_group_sequences(str(tiny_data), [trainer_data.BASE_MODEL_ID]).train
    config = shard_files.with_settings_of(sequences, config)
    assert config.sequence.max_to_keep == 8


def test_windows_come_back_from_json(tmp_path: Path) -> None:
    windows = [{"level": 1.0, "width": 2.0}] * 3
    trainer_data.write_examples(
        tmp_path, "train", trainer_data.make_studies("train", num_patients=1), windows=windows
    )
    folder = shard_files.read_folder(str(tmp_path / "train"), "x")
    assert json.loads(json.dumps(folder.settings))["windows"] == windows
    assert shard_files.with_settings_of(folder, Config()).examples.windows[0].width == 2.0


def test_folds_share_out_whole_patients(tmp_path: Path) -> None:
    studies = trainer_data.make_studies("train")
    trainer_data.write_examples(tmp_path, "train", studies, num_shards=3)
    train = shard_files.read_folder(str(tmp_path / "train"), "")
    assert shard_files.without_fold(train, 1, 0) == train
    left = [shard_files.without_fold(train, 3, fold) for fold in range(3)]
    assert [part.num_slices for part in left] == [len(list(part.records())) for part in left]
    assert sum(part.num_slices for part in left) == 2 * train.num_slices
    assert sum(part.num_patients for part in left) == 2 * train.num_patients
    totals = {name: sum(p.label_counts[name] for p in left) for name in train.label_counts}
    assert totals == {name: 2 * count for name, count in train.label_counts.items()}
    for part, missing in zip(left, train.paths, strict=True):
        assert set(train.paths) - set(part.paths) == {missing}


def test_the_manifest_says_how_images_were_made(tiny_data: Path) -> None:
    train = shard_files.read_examples(str(tiny_data)).train
    config = Config(ExamplesConfig(channels="both", crop="head", image_size=64))
    made = shard_files.with_settings_of(train, config).examples
    assert (made.image_size, made.channels, made.crop) == (32, "windows", "none")
    old = {name: value for name, value in train.settings.items() if name != "channels"}
    with pytest.raises(UserError, match="does not say channels: it is of an earlier version; run"):
        shard_files.with_settings_of(dataclasses.replace(train, settings=old), config)


def test_more_folds_than_shards_are_refused(tiny_data: Path) -> None:
    train = shard_files.read_examples(str(tiny_data)).train
    with pytest.raises(UserError, match=r"folds: received 3, but .* has 2 shards"):
        shard_files.without_fold(train, 3, 0)
