"""The sequence model's main: what it writes, resumes and refuses."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trainer_data

from beam_pipelines import schema
from beam_pipelines.errors import UserError
from trainer import (
    experiment,
    group_files,
    inference,
    metrics,
    model_files,
    registry,
    shard_files,
    train_sequence,
)
from trainer.train_sequence import main

BASE_ID, LSTM_ID = trainer_data.BASE_MODEL_ID, trainer_data.SEQUENCE_MODEL_ID
GROUP_ID = trainer_data.GROUP_ID


def _lstm(data_dir: Path) -> experiment.Experiment:
    return registry.find_experiment(str(data_dir), experiment.LSTM, LSTM_ID)


def test_it_learns_and_writes_an_experiment(trained: Path) -> None:
    found = _lstm(trained)
    record = found.record()
    assert record["status"] == "finished"
    assert record["base_model_id"] == BASE_ID
    assert record["base_model_ids"] == [BASE_ID]
    assert record["history"][1]["loss"] < record["history"][0]["loss"]
    assert found.config().sequence.max_to_keep == 8
    assert registry.base_experiments_of(found)[0].model_id == BASE_ID
    # What the base model was trained with, not this run's defaults.
    assert found.config().base == registry.base_experiments_of(found)[0].config().base


def test_a_killed_run_ends_as_an_undisturbed_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_data.write_data(tmp_path)
    base = registry.find_experiment(str(trained), experiment.BASE)
    shutil.copytree(base.folder, tmp_path / "experiments" / Path(base.folder).name)
    config = trainer_data.tiny_config()
    with monkeypatch.context() as patch:
        trainer_data.kill_after_epoch(patch, 1)
        with pytest.raises(trainer_data.Killed):
            train_sequence.train_sequence(str(tmp_path), config, BASE_ID, LSTM_ID)
    assert not _lstm(tmp_path).finished
    train_sequence.train_sequence(str(tmp_path), config, BASE_ID, LSTM_ID)
    weights = model_files.load_model(_lstm(tmp_path).model_file).get_weights()
    again = model_files.load_model(_lstm(trained).model_file).get_weights()
    for weight, expected in zip(weights, again, strict=True):
        assert np.allclose(weight, expected, atol=1e-5)


def _main(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train_sequence", *flags])
    main()


def test_val_ratio_is_only_a_check(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--data_dir", str(trained), "--batch_size", "64"]
    with pytest.raises(UserError, match=r"val_ratio: received 0.3, but .* was made with 0.1; pat"):
        _main(monkeypatch, *flags, "--val_ratio", "0.3")
    with pytest.raises(UserError, match=r"batch_size: received 64, but .* has only 8 sequences"):
        _main(monkeypatch, *flags, "--val_ratio", "0.1")


def test_max_to_keep_is_settled_by_the_shards(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"max_to_keep: received 60, but .* was made with 8; run"):
        _main(monkeypatch, "--data_dir", str(trained), "--max_to_keep", "60")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with sequences of a group of two; its sequence model is trained."""
    data_dir = tmp_path_factory.mktemp("group")
    trainer_data.write_group_sequences(data_dir, 2)
    trainer_data.make_group(data_dir, 2)
    config = trainer_data.tiny_config()
    sequence = dataclasses.replace(config.sequence, num_epochs=4)
    config = dataclasses.replace(config, sequence=sequence)
    train_sequence.train_sequence(str(data_dir), config, GROUP_ID, LSTM_ID)
    return data_dir


def test_one_model_is_trained_on_all_members(group: Path) -> None:
    found = _lstm(group)
    record = found.record()
    members = [f"{GROUP_ID}-fold0", f"{GROUP_ID}-fold1"]
    assert record["base_model_id"] == GROUP_ID
    assert record["base_model_ids"] == members
    assert [base.model_id for base in registry.base_experiments_of(found)] == members
    splits = group_files.read_group_sequences(str(group), members)
    assert record["data_fingerprints"] == splits.fingerprints
    assert record["history"][-1]["loss"] < record["history"][0]["loss"]
    (matrices,) = model_files.load_model(found.model_file).get_layer("fold_matrices").get_weights()
    assert matrices.shape[0] == 2
    assert not np.allclose(matrices[0], matrices[1], atol=1e-4)


def test_a_group_is_judged_by_the_mean_over_members(group: Path) -> None:
    """Of probabilities: over the windows of a study, then over members."""
    found = _lstm(group)
    scorer = inference.load_sequence(found)
    means = []
    for fold in range(2):
        folder = str(group / "sequences" / f"{GROUP_ID}-fold{fold}" / "validation")
        records = map(schema.decode_sequence, shard_files.read_folder(folder, "").records())
        rows: dict[str, list[np.ndarray]] = {}
        for sequence in records:
            logits = scorer(
                {
                    "embeddings": sequence.embeddings[np.newaxis],
                    "logits": sequence.logits[np.newaxis],
                    "slice_features": sequence.slice_features[np.newaxis],
                    "mask": sequence.mask[np.newaxis],
                    "fold": np.array([fold]),
                }
            )[0]
            for image_id, row in zip(sequence.image_ids, logits, strict=True):
                rows.setdefault(image_id, []).append(metrics.sigmoid(row))
        means.append({image_id: np.mean(found_, axis=0) for image_id, found_ in rows.items()})
    studies = trainer_data.make_studies("validation")
    ids = [item.image_id for study in studies for item in study.slices]
    probabilities = np.array([(means[0][i] + means[1][i]) / 2 for i in ids])
    expected = metrics.weighted_log_loss(
        np.concatenate([study.labels for study in studies]), probabilities
    )
    judged = found.record()["validation"]["val_weighted_log_loss"]
    assert judged == pytest.approx(expected, rel=1e-5)


def test_a_member_alone_has_a_model_without_folds(group: Path, tmp_path: Path) -> None:
    shutil.copytree(group / "sequences", tmp_path / "sequences")
    trainer_data.make_group(tmp_path, 2)
    config = trainer_data.tiny_config()
    sequence = dataclasses.replace(config.sequence, num_epochs=1)
    config = dataclasses.replace(config, sequence=sequence)
    member = f"{GROUP_ID}-fold1"
    found = train_sequence.train_sequence(str(tmp_path), config, member, LSTM_ID)
    assert found.record()["base_model_ids"] == [member]
    assert "fold" not in model_files.load_model(found.model_file).input


def test_a_member_without_sequences_is_named(
    group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(group / "sequences", tmp_path / "sequences")
    trainer_data.make_group(tmp_path, 2)
    shutil.rmtree(tmp_path / "sequences" / f"{GROUP_ID}-fold1" / "train")
    with pytest.raises(
        UserError,
        match=r"group1-fold1/train: no manifest.json, .*build_sequences --model_id group1$",
    ):
        _main(monkeypatch, "--data_dir", str(tmp_path), "--base_model_id", GROUP_ID)


def test_settings_without_an_input_are_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("embeddings", "differences", "logits", "slice_features")
    flags = [f"--no-use_{name}" for name in names]
    with pytest.raises(UserError, match="so that nothing is left to look at; set one of them"):
        _main(
            monkeypatch,
            *("--data_dir", str(trained), "--batch_size", "4", "--model_id", "nothing"),
            *flags,
        )
    assert not list((trained / "experiments" / "lstm").glob("nothing*"))


def test_without_sequences_one_line_says_what_to_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.train_sequence", "--data_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no sequences: run `python -m beam_pipelines.build_sequences` first" in done.stderr
