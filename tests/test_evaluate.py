"""The main: what it reads, writes and refuses."""

import json
import shutil
import sys
from pathlib import Path

import embedding_data
import numpy as np
import pytest
import trainer_data

from beam_pipelines import schema, storage
from beam_pipelines.errors import UserError
from beam_pipelines.layout import LABEL_PRIORS, TRANSFORM
from launch import summary
from trainer import (
    evaluate,
    experiment,
    group_files,
    inference,
    judging,
    metrics,
    model_files,
    registry,
    shard_files,
)
from trainer.bootstrap import Bootstrap

BASE_ID, LSTM_ID = trainer_data.BASE_MODEL_ID, trainer_data.SEQUENCE_MODEL_ID
FEW = Bootstrap(20)


def _lstm(data_dir: Path) -> experiment.Experiment:
    return registry.find_experiment(str(data_dir), experiment.LSTM, LSTM_ID)


def _main(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *flags])
    evaluate.main()


def test_losses_side_by_side(trained: Path) -> None:
    found = _lstm(trained)
    report, path = evaluate.evaluate(str(trained), found, bootstrap=FEW)
    assert path == found.path("evaluation.json")
    assert json.loads(Path(path).read_text()) == report
    assert (report["num_slices"], report["num_studies"], report["num_patients"]) == (22, 4, 4)
    assert (report["format_version"], report["model_type"], report["model_id"]) == (
        2,
        "lstm",
        LSTM_ID,
    )
    assert (report["base_model_ids"], report["split"]) == ([BASE_ID], "validation")
    assert report["data_fingerprint"] == "sequences-validation"
    losses = {n: m["slice"]["weighted_log_loss"]["value"] for n, m in report["models"].items()}
    assert list(losses) == ["prior", "base", "lstm", "base_calibrated", "lstm_calibrated"]
    # What training said of the same model on the same slices.
    expected = found.record()["validation"]["val_weighted_log_loss"]
    assert losses["lstm"] == pytest.approx(expected, rel=1e-5)

    studies = trainer_data.make_studies("validation")
    labels = np.concatenate([study.labels for study in studies])
    priors = shard_files.label_priors(shard_files.read_examples(str(trained)).train)
    row = np.array([priors[name] for name in schema.SUBTYPES])
    expected = metrics.weighted_log_loss(labels, np.broadcast_to(row, labels.shape))
    assert losses["prior"] == pytest.approx(expected)


def test_the_summary_shows_the_losses(trained: Path) -> None:
    found = _lstm(trained)
    report, path = evaluate.evaluate(str(trained), found, bootstrap=FEW)
    lines = summary.loss_lines(summary.read_evaluation(path))
    assert lines[0].endswith("weighted log loss on 22 slices of 4 patients never trained on")
    names = ("prior", "base", "lstm")
    losses = [report["models"][n]["slice"]["weighted_log_loss"]["value"] for n in names]
    assert lines[2].split() == [f"{loss:.4f}" for loss in losses]
    assert summary.losses_fall(report) == (losses[0] > losses[1] > losses[2])


def test_the_summary_refuses_other_formats(tmp_path: Path) -> None:
    path = str(tmp_path / "evaluation.json")
    with pytest.raises(UserError, match=r"no such file; run python -m trainer.evaluate first"):
        summary.read_evaluation(path)
    storage.write_json(path, {"losses": {}})
    with pytest.raises(
        UserError, match=r"of format 1, not 2; run python -m trainer.evaluate again"
    ):
        summary.read_evaluation(path)


def test_the_main_prints_the_table(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _main(monkeypatch, "--data_dir", str(trained), "--bootstrap", "30")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("validation: 22 slices, 4 studies, 4 patients; [95% intervals of 30")
    assert lines[-1] == f"wrote {_lstm(trained).path('evaluation.json')}"
    with pytest.raises(UserError, match="--bootstrap: received -1; give a number, at least 0"):
        _main(monkeypatch, "--data_dir", str(trained), "--bootstrap", "-1")


def test_another_base_model_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data_dir", str(trained), "--bootstrap", "0", "--base_model_id"]
    with pytest.raises(UserError, match=r"received 'other', but .* is made of base1; leave"):
        _main(monkeypatch, *flags, "other")
    _main(monkeypatch, *flags, BASE_ID)
    assert "wrote" in capsys.readouterr().out


def test_a_group_of_base_models_is_judged_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean of the members' probabilities, without a sequence model."""
    series = [embedding_data.make_items(f"p{number}", 5) for number in range(6)]
    members = embedding_data.make_group(tmp_path, 2)
    embedding_data.write_group_embeddings(tmp_path, "validation", series, 2)
    flags = ["--data_dir", str(tmp_path), "--model_type", "base", "--bootstrap", "0"]
    _main(monkeypatch, *flags, "--model_id", embedding_data.GROUP_ID)
    path = members[0].path("group-evaluation.json")
    assert path in capsys.readouterr().out
    ids = [member.model_id for member in members]
    report = storage.read_json(path)
    assert report["base_model_ids"] == ids
    items = [item for group in series for item in group]
    probabilities = [
        [metrics.sigmoid(embedding_data.embedding_of(item.image_id, name)[1]) for item in items]
        for name in ids
    ]
    means = np.mean(probabilities, axis=0)
    loss = metrics.weighted_log_loss(np.array([item.label for item in items]), means)
    found = report["models"]["base"]["slice"]["weighted_log_loss"]["value"]
    assert found == pytest.approx(loss, rel=1e-5)
    # A member alone is judged like any other base model.
    _main(monkeypatch, *flags, "--model_id", ids[1])
    assert members[1].path("evaluation.json") in capsys.readouterr().out


def test_the_train_split_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/train: .* was trained on these patients"):
        evaluate.evaluate(str(trained), _lstm(trained), "train")
    # Also in a copy of the data root.
    shutil.copytree(trained / "sequences", tmp_path / "sequences")
    with pytest.raises(UserError, match="give --split validation or the --data_dir of other"):
        evaluate.evaluate(str(tmp_path), _lstm(trained), "train")
    assert {path.name for path in Path(_lstm(trained).folder).glob("eval*")} <= {"evaluation.json"}


def test_another_data_root_needs_only_the_split_asked_for(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _lstm(trained)
    before, path = evaluate.evaluate(str(trained), found, bootstrap=FEW)
    rng = np.random.default_rng(5)
    studies = [trainer_data.make_study(rng, f"other{number}", 5, 32) for number in range(3)]
    trainer_data.write_sequences(tmp_path, "train", studies, examples_fingerprint="unseen")
    manifest = tmp_path / "sequences" / BASE_ID / "train" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("sequences-train", "0123456789"))
    flags = ["--data_dir", str(tmp_path), "--model_id", found.folder, "--bootstrap", "10"]
    _main(monkeypatch, *flags, "--split", "train")
    report = storage.read_json(found.path("evaluation-train-01234567.json"))
    assert (report["split"], report["num_patients"], report["num_slices"]) == ("train", 3, 15)
    assert report["models"]["lstm"] != before["models"]["lstm"]
    # The figures on its own validation split are still there.
    assert storage.read_json(path) == before
    Path(found.path("evaluation-train-01234567.json")).unlink()


def test_a_base_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    series = [embedding_data.make_items(f"p{number}", 6) for number in range(4)]
    embedding_data.write_embeddings(tmp_path, "validation", series)
    embedding_data.write_embeddings(tmp_path, "train", series)
    found = embedding_data.make_experiment(tmp_path, experiment.BASE)
    flags = ["--data_dir", str(tmp_path), "--model_type", "base", "--bootstrap", "10"]
    _main(monkeypatch, *flags)
    assert "label_priors.json: no such file; no prior baseline" in capsys.readouterr().err
    report = storage.read_json(found.path("evaluation.json"))
    assert (report["model_type"], report["base_model_ids"]) == ("base", ["base1"])
    assert set(report["models"]) == {"base", "base_calibrated"}
    items = [item for group in series for item in group]
    labels = np.array([item.label for item in items])
    logits = np.array([embedding_data.embedding_of(item.image_id)[1] for item in items])
    expected = metrics.weighted_log_loss(labels, metrics.sigmoid(logits))
    loss = report["models"]["base"]["slice"]["weighted_log_loss"]["value"]
    assert loss == pytest.approx(expected)
    storage.write_json(found.path(TRANSFORM, LABEL_PRIORS), dict.fromkeys(schema.SUBTYPES, 0.25))
    _main(monkeypatch, *flags)
    assert capsys.readouterr().err == ""
    assert "prior" in storage.read_json(found.path("evaluation.json"))["models"]
    # Other embeddings of the examples that it was trained on, in another data root.
    other = tmp_path / "other"
    embedding_data.write_embeddings(other, "train", series)
    with pytest.raises(UserError, match="was trained on these patients"):
        evaluate.evaluate(str(other), found, "train")
    embedding_data.write_embeddings(other, "train", series, examples_fingerprint="unseen")
    _, path = evaluate.evaluate(str(other), found, "train", FEW)
    assert Path(path).name.startswith("evaluation-train-")


def test_judges_predict_what_they_judge(trained: Path) -> None:
    base = registry.find_experiment(str(trained), experiment.BASE, BASE_ID)
    examples = shard_files.read_examples(str(trained)).validation
    sequences = group_files.read_group_sequences(str(trained), [BASE_ID]).validation
    judges = (
        (judging.SliceJudge(examples, base.config().examples, base.config().base), base),
        (judging.SequenceJudge(sequences, 4), _lstm(trained)),
    )
    expected = np.concatenate([s.labels for s in trainer_data.make_studies("validation")])
    for judge, found in judges:
        model = model_files.load_model(found.model_file)
        labels, probabilities = judge.predict(model)
        assert labels.shape == probabilities.shape == (22, 6)
        assert np.array_equal(np.sort(labels, axis=0), np.sort(expected, axis=0))
        loss = metrics.weighted_log_loss(labels, probabilities)
        assert judge(model) == {"val_weighted_log_loss": loss}
        trained_loss = found.record()["validation"]["val_weighted_log_loss"]
        assert loss == pytest.approx(trained_loss, rel=1e-4)


def test_an_unfinished_model_cannot_be_loaded(tmp_path: Path) -> None:
    config = trainer_data.tiny_config()
    found = registry.choose_experiment(str(tmp_path), experiment.BASE, "1", config, {})
    experiment.start_experiment(found, config, {})
    with pytest.raises(UserError, match="training has not finished; start it again with --model_"):
        inference.load_base(found)
