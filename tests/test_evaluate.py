"""The three models side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
import trainer_data

from beam_pipelines import schema
from beam_pipelines.errors import UserError
from trainer import evaluate, experiment, inference, judging, metrics, shard_files

BASE_ID, LSTM_ID = trainer_data.BASE_MODEL_ID, trainer_data.SEQUENCE_MODEL_ID


def test_losses_side_by_side(trained: Path) -> None:
    found = experiment.find_experiment(str(trained), experiment.LSTM, LSTM_ID)
    report = evaluate.evaluate(str(trained), found)
    assert json.loads(Path(found.path("evaluation.json")).read_text()) == report
    assert (report["num_slices"], report["num_patients"]) == (22, 4)
    losses = report["losses"]
    assert list(losses) == ["prior", "base", "lstm"]
    # What training said of the same model on the same slices.
    expected = found.record()["validation"]["val_weighted_log_loss"]
    assert losses["lstm"]["weighted_log_loss"] == pytest.approx(expected, rel=1e-5)

    studies = trainer_data.make_studies("validation")
    labels = np.concatenate([study.labels for study in studies])
    priors = shard_files.label_priors(shard_files.read_examples(str(trained)).train)
    row = np.array([priors[name] for name in schema.SUBTYPES])
    expected = metrics.weighted_log_loss(labels, np.broadcast_to(row, labels.shape))
    assert losses["prior"]["weighted_log_loss"] == pytest.approx(expected)


def test_the_table_has_a_line_for_each_loss(trained: Path) -> None:
    found = experiment.find_experiment(str(trained), experiment.LSTM, LSTM_ID)
    lines = evaluate.table(evaluate.evaluate(str(trained), found)).splitlines()
    assert lines[0] == "validation: 22 slices of 4 patients"
    assert lines[1].split() == ["log", "loss", "prior", "base", "lstm"]
    assert [line.split()[0] for line in lines[2:]] == ["weighted", *schema.SUBTYPES]


def test_another_base_model_is_refused(trained: Path) -> None:
    found = experiment.find_experiment(str(trained), experiment.LSTM, LSTM_ID)
    with pytest.raises(UserError, match=r"received 'other', but .* was trained on .* base1"):
        evaluate.evaluate(str(trained), found, "other")


def test_windows_that_overlap_are_averaged(tmp_path: Path) -> None:
    study = trainer_data.make_study(np.random.default_rng(0), "p", 6, 32)
    trainer_data.write_sequences(tmp_path, "validation", [study], max_to_keep=4)
    folder = shard_files.read_folder(str(tmp_path / "sequences" / BASE_ID / "validation"), "x")
    assert folder.num_sequences == 2
    slices = judging.SequenceSlices(folder)
    # The first window says 0.2 of everything, the second 0.6; slices 2 and 3 are in both.
    probabilities = np.repeat([[[0.2]], [[0.6]]], 4, axis=1) * np.ones(6)
    labels, means = slices.by_image(probabilities)
    assert np.array_equal(labels, study.labels)
    assert means[:, 0] == pytest.approx([0.2, 0.2, 0.4, 0.4, 0.6, 0.6])


def test_an_unfinished_model_cannot_be_loaded(tmp_path: Path) -> None:
    config = trainer_data.tiny_config()
    found = experiment.choose_experiment(str(tmp_path), experiment.BASE, "1", config, {})
    experiment.start_experiment(found, config, {})
    with pytest.raises(UserError, match="training has not finished; start it again with --model_"):
        inference.load_base(found)
