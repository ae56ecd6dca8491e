"""The sequence model's main: what it writes, resumes and refuses."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trainer_data

from beam_pipelines.errors import UserError
from trainer import experiment, model_files, train_sequence
from trainer.train_sequence import main

BASE_ID, LSTM_ID = trainer_data.BASE_MODEL_ID, trainer_data.SEQUENCE_MODEL_ID


def _lstm(data_dir: Path) -> experiment.Experiment:
    return experiment.find_experiment(str(data_dir), experiment.LSTM, LSTM_ID)


def test_it_learns_and_writes_an_experiment(trained: Path) -> None:
    found = _lstm(trained)
    record = found.record()
    assert record["status"] == "finished"
    assert record["base_model_id"] == BASE_ID
    assert record["history"][1]["loss"] < record["history"][0]["loss"]
    assert found.config().sequence.max_to_keep == 8
    assert found.base_experiment().model_id == BASE_ID
    # What the base model was trained with, not this run's defaults.
    assert found.config().base == found.base_experiment().config().base


def test_a_killed_run_ends_as_an_undisturbed_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_data.write_data(tmp_path)
    base = experiment.find_experiment(str(trained), experiment.BASE)
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


def test_val_ratio_is_only_a_check(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--data_dir", str(tiny_data), "--batch_size", "64"]
    with pytest.raises(UserError, match=r"val_ratio: received 0.3, but .* was made with 0.1; pat"):
        _main(monkeypatch, *flags, "--val_ratio", "0.3")
    with pytest.raises(UserError, match=r"batch_size: received 64, but .* has only 8 sequences"):
        _main(monkeypatch, *flags, "--val_ratio", "0.1")


def test_max_to_keep_is_settled_by_the_shards(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"max_to_keep: received 60, but .* was made with 8; run"):
        _main(monkeypatch, "--data_dir", str(tiny_data), "--max_to_keep", "60")


def test_without_sequences_one_line_says_what_to_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.train_sequence", "--data_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no sequences: run `python -m beam_pipelines.build_sequences` first" in done.stderr
