"""Experiment folders: names, look-up, and what may be resumed."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from beam_pipelines.errors import UserError
from configs import Config
from trainer import experiment
from trainer.experiment import BASE, LSTM

DATA = {"data_fingerprints": {"train": "a", "validation": "b"}}


def _open(
    root: Path, model_id: str | None = "7", config: Config | None = None, kind: str = BASE
) -> experiment.Experiment:
    data = DATA if kind == BASE else {**DATA, "base_model_id": "7"}
    config = config or Config()
    found = experiment.choose_experiment(str(root), kind, model_id, config, data)
    experiment.start_experiment(found, config, data)
    return found


def test_folders_are_named_as_before(tmp_path: Path) -> None:
    base = _open(tmp_path)
    assert base.folder == f"{tmp_path}/experiments/7_tf_weighted_loss_b32_e5"
    lstm = _open(tmp_path, "8", kind=LSTM)
    assert lstm.folder == f"{tmp_path}/experiments/lstm/8_b32_e10_l2_cs256"


def test_a_new_experiment_is_named_by_the_time(tmp_path: Path) -> None:
    first, second = _open(tmp_path, None), _open(tmp_path, None)
    assert first.model_id.isdigit()
    assert first.model_id != second.model_id


def test_it_saves_config_and_versions(tmp_path: Path) -> None:
    found = _open(tmp_path)
    assert found.config() == Config()
    assert yaml.safe_load(Path(found.path("config.yaml")).read_text())["base"]["batch_size"] == 32
    versions = yaml.safe_load(Path(found.path("versions.json")).read_text())
    assert versions["keras"].startswith("3.")
    assert not found.finished


def test_the_same_id_is_resumed_or_refused(tmp_path: Path) -> None:
    assert _open(tmp_path) == _open(tmp_path)
    other = Config(base=dataclasses.replace(Config().base, lr=0.5))
    with pytest.raises(UserError, match=r"other settings: lr \(was 0.0001, now 0.5\); give"):
        _open(tmp_path, config=other)
    more = Config(base=dataclasses.replace(Config().base, num_epochs=6))
    with pytest.raises(UserError, match=r"num_epochs \(was 5, now 6\)"):
        _open(tmp_path, config=more)
    data = {"data_fingerprints": {"train": "c", "validation": "b"}}
    with pytest.raises(UserError, match="data_fingerprints"):
        experiment.choose_experiment(str(tmp_path), BASE, "7", Config(), data)


@pytest.mark.parametrize("model_id", ["a/b", "", "..", "a b"])
def test_an_id_must_fit_into_a_path(tmp_path: Path, model_id: str) -> None:
    with pytest.raises(UserError, match="model_id: received"):
        _open(tmp_path, model_id)


def test_find_by_id_by_folder_or_the_only_one(tmp_path: Path) -> None:
    found = _open(tmp_path)
    root = str(tmp_path)
    assert experiment.find_experiment(root, BASE, "7") == found
    assert experiment.find_experiment(root, BASE) == found
    assert experiment.find_experiment("/elsewhere", BASE, found.folder + "/") == found
    _open(tmp_path, "9")
    with pytest.raises(UserError, match="2 base experiments: 7, 9; say which"):
        experiment.find_experiment(root, BASE)


def test_an_unknown_id_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 lstm experiments: none; train one first: python -m"):
        experiment.find_experiment(str(tmp_path), LSTM)
    _open(tmp_path)
    with pytest.raises(UserError, match="no base experiment '1'; there are: 7; give one of them"):
        experiment.find_experiment(str(tmp_path), BASE, "1")
    with pytest.raises(UserError, match="no lstm experiment '7'; there are: none"):
        experiment.find_experiment(str(tmp_path), LSTM, "7")
    with pytest.raises(UserError, match=r"no experiment.json: give the folder"):
        experiment.find_experiment(str(tmp_path), BASE, str(tmp_path))


def test_a_folder_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    found = _open(tmp_path)
    with pytest.raises(UserError, match="a base experiment; give the folder of a lstm experiment"):
        experiment.find_experiment(str(tmp_path), LSTM, found.folder)


def test_the_base_experiment_is_beside_the_lstm(tmp_path: Path) -> None:
    base, lstm = _open(tmp_path), _open(tmp_path, "8", kind=LSTM)
    assert lstm.base_experiment() == base
    moved = tmp_path / "moved"
    (tmp_path / "experiments").rename(moved)
    found = experiment.find_experiment("/elsewhere", LSTM, str(moved / "lstm/8_b32_e10_l2_cs256"))
    assert found.base_experiment().folder == str(moved / "7_tf_weighted_loss_b32_e5")


def test_imports_stay_light() -> None:
    """What a Beam worker imports at start-up brings neither TensorFlow nor, here, Beam."""
    modules = "experiment, inference, train_base, train_sequence, evaluate, metrics, strategy"
    code = f"import sys; from trainer import {modules}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("tensorflow", "keras", "apache_beam"):
        assert f"'{name}'" not in done.stdout
