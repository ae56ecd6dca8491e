"""The base model's main: what it writes, resumes and refuses."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trainer_data

from beam_pipelines import storage
from beam_pipelines.errors import UserError
from trainer import experiment, metrics, model_files, registry, train_base

FLAGS = ["--pretrained_model", "small_cnn", "--pretrained_weights", "none"]


def _base(data_dir: Path) -> experiment.Experiment:
    return registry.find_experiment(str(data_dir), experiment.BASE, trainer_data.BASE_MODEL_ID)


def _run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.train_base", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_learns_and_writes_an_experiment(trained: Path) -> None:
    found = _base(trained)
    record = found.record()
    assert record["status"] == "finished"
    assert record["data_fingerprints"]["train"] == "examples-train"
    assert [line["epoch"] for line in record["history"]] == [1, 2]
    assert record["history"][1]["loss"] < record["history"][0]["loss"]
    best = min(line["val_weighted_log_loss"] for line in record["history"])
    assert record["validation"] == {"val_weighted_log_loss": pytest.approx(best, rel=1e-5)}
    assert 0.5 <= record["temperature"] <= 3
    assert found.config().examples.image_size == 32
    names = {path.name for path in Path(found.folder).iterdir()}
    files = {"config.yaml", "versions.json", "experiment.json", "model.keras"}
    assert names == files | {"checkpoints", "tensorboard", "transform"}
    assert list(Path(found.path("tensorboard")).rglob("events.*"))


def test_a_finished_run_says_so(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(_base(trained).model_file).stat().st_mtime_ns
    config = trainer_data.tiny_config()
    train_base.train_base(str(trained), config, trainer_data.BASE_MODEL_ID)
    assert "already trained with these settings" in capsys.readouterr().out
    assert Path(_base(trained).model_file).stat().st_mtime_ns == before
    with pytest.raises(UserError, match="was started with other settings: batch_size"):
        config = trainer_data.tiny_config(batch_size=4)
        train_base.train_base(str(trained), config, trainer_data.BASE_MODEL_ID)


def test_a_killed_run_ends_as_an_undisturbed_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same weights, history and loss: order, augmentation, dropout and Adam go on as they were."""
    trainer_data.write_data(tmp_path)
    config = trainer_data.tiny_config()
    with monkeypatch.context() as patch:
        trainer_data.kill_after_epoch(patch, 1)
        with pytest.raises(trainer_data.Killed):
            train_base.train_base(str(tmp_path), config, trainer_data.BASE_MODEL_ID)
    killed = _base(tmp_path)
    assert not killed.finished
    assert not Path(killed.model_file).exists()
    train_base.train_base(str(tmp_path), config, trainer_data.BASE_MODEL_ID)
    resumed, undisturbed = killed.record(), _base(trained).record()
    for line, expected in zip(resumed["history"], undisturbed["history"], strict=True):
        for name in ("epoch", "loss", "val_weighted_log_loss"):
            assert line[name] == pytest.approx(expected[name], rel=1e-4)
    weights = model_files.load_model(killed.model_file).get_weights()
    again = model_files.load_model(_base(trained).model_file).get_weights()
    for weight, expected in zip(weights, again, strict=True):
        assert np.allclose(weight, expected, atol=1e-4)


def test_export_of_a_finished_run(trained: Path) -> None:
    found = _base(trained)
    config = trainer_data.tiny_config()
    train_base.train_base(str(trained), config, trainer_data.BASE_MODEL_ID, export=True)
    assert storage.exists(found.path("export", "saved_model.pb"))
    storage.filesystem(found.folder)[0].rm(found.path("export"), recursive=True)


def test_help_is_fast_and_names_the_settings() -> None:
    done = _run("--help")
    assert done.returncode == 0
    for flag in ("--data_dir", "--pretrained_model", "--model_id", "--export", "--lr"):
        assert flag in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            (),
            "train: no manifest.json, so it is missing or incomplete; run python -m "
            "beam_pipelines.build_examples",
        ),
        (("--lr", "0"), "BaseConfig.lr: received 0.0; give a number above 0"),
        (("--config", "nothing.yaml"), "config nothing.yaml: no such file"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = _run("--data_dir", str(tmp_path), *FLAGS, *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_batch_larger_than_the_split_is_refused(tiny_data: Path) -> None:
    config = trainer_data.tiny_config(batch_size=64)
    with pytest.raises(
        UserError, match=r"received 64, but .* has only 44 labelled slices to train on"
    ):
        train_base.train_base(str(tiny_data), config)
    assert not (tiny_data / "experiments").exists()


def test_only_positive_slices_cannot_be_oversampled(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        studies = [
            dataclasses.replace(
                study,
                labels=np.ones_like(study.labels),
                slices=tuple(dataclasses.replace(s, label=(1,) * 6) for s in study.slices),
            )
            for study in trainer_data.make_studies(split)
        ]
        trainer_data.write_examples(tmp_path, split, studies)
    config = trainer_data.tiny_config(positive_share=0.5)
    with pytest.raises(UserError, match=r"positive_share: received 0.5, but 44 of 44 labelled"):
        train_base.train_base(str(tmp_path), config)


def test_each_fold_is_trained_without_its_patients(tmp_path: Path) -> None:
    trainer_data.write_examples(tmp_path, "train", trainer_data.make_studies("train"), 3)
    trainer_data.write_examples(tmp_path, "validation", trainer_data.make_studies("validation"))
    # So slow that the head stays where it starts: at the label priors of what is trained on.
    config = trainer_data.tiny_config(folds=3, num_epochs=1, lr=1e-9)
    found = train_base.train_base(str(tmp_path), config, "g")
    assert [member.model_id for member in found] == ["g-fold0", "g-fold1", "g-fold2"]
    studies = trainer_data.make_studies("train")
    biases = []
    for fold, member in enumerate(found):
        record = member.record()
        assert (record["group"], record["fold"], record["status"]) == ("g", fold, "finished")
        # Studies are dealt to the three shards in turns.
        labels = np.concatenate([s.labels for i, s in enumerate(studies) if i % 3 != fold])
        biases.append(
            model_files.load_model(member.model_file).get_layer("logits").get_weights()[1]
        )
        assert metrics.sigmoid(biases[-1]) == pytest.approx(labels.mean(0), rel=1e-4)
    assert np.abs(biases[0] - biases[1]).max() > 0.01
    assert np.abs(biases[1] - biases[2]).max() > 0.01
    again = train_base.train_base(str(tmp_path), config, "g")
    assert again == found


def test_weights_that_are_missing_leave_no_experiment(tiny_data: Path) -> None:
    config = trainer_data.tiny_config(pretrained_weights="imagenet")
    with pytest.raises(UserError, match="imagenet, which small_cnn does not have"):
        train_base.train_base(str(tiny_data), config)
    assert not (tiny_data / "experiments").exists()
