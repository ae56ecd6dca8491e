"""Experiment folders: names, look-up, and what may be resumed."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from beam_pipelines.errors import UserError
from configs import Config, ExamplesConfig
from configs.loader import to_mapping
from trainer import experiment, registry
from trainer.experiment import BASE, LSTM

DATA = {"data_fingerprints": {"train": "a", "validation": "b"}}


def _open(
    root: Path, model_id: str | None = "7", config: Config | None = None, kind: str = BASE
) -> experiment.Experiment:
    data = DATA if kind == BASE else {**DATA, "base_model_id": "7"}
    config = config or Config()
    found = registry.choose_experiment(str(root), kind, model_id, config, data)
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
        registry.choose_experiment(str(tmp_path), BASE, "7", Config(), data)


@pytest.mark.parametrize("model_id", ["a/b", "", "..", "a b"])
def test_an_id_must_fit_into_a_path(tmp_path: Path, model_id: str) -> None:
    with pytest.raises(UserError, match="model_id: received"):
        _open(tmp_path, model_id)


def test_find_by_id_by_folder_or_the_only_one(tmp_path: Path) -> None:
    found = _open(tmp_path)
    root = str(tmp_path)
    assert registry.find_experiment(root, BASE, "7") == found
    assert registry.find_experiment(root, BASE) == found
    assert registry.find_experiment("/elsewhere", BASE, found.folder + "/") == found
    _open(tmp_path, "9")
    with pytest.raises(UserError, match="2 base experiments: 7, 9; say which"):
        registry.find_experiment(root, BASE)


def test_an_unknown_id_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 lstm experiments: none; train one first: python -m"):
        registry.find_experiment(str(tmp_path), LSTM)
    _open(tmp_path)
    with pytest.raises(UserError, match="no base experiment '1'; there are: 7; give one of them"):
        registry.find_experiment(str(tmp_path), BASE, "1")
    with pytest.raises(UserError, match="no lstm experiment '7'; there are: none"):
        registry.find_experiment(str(tmp_path), LSTM, "7")
    with pytest.raises(UserError, match=r"no experiment.json: give the folder"):
        registry.find_experiment(str(tmp_path), BASE, str(tmp_path))


def test_a_folder_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    found = _open(tmp_path)
    with pytest.raises(UserError, match="a base experiment; give the folder of a lstm experiment"):
        registry.find_experiment(str(tmp_path), LSTM, found.folder)


def test_the_base_experiment_is_beside_the_lstm(tmp_path: Path) -> None:
    base, lstm = _open(tmp_path), _open(tmp_path, "8", kind=LSTM)
    assert registry.base_experiments_of(lstm)[0] == base
    moved = tmp_path / "moved"
    (tmp_path / "experiments").rename(moved)
    found = registry.find_experiment("/elsewhere", LSTM, str(moved / "lstm/8_b32_e10_l2_cs256"))
    assert registry.base_experiments_of(found)[0].folder == str(moved / "7_tf_weighted_loss_b32_e5")


def _open_group(root: Path, group: str = "7", folds: int = 3) -> list[experiment.Experiment]:
    config = Config(base=dataclasses.replace(Config().base, folds=folds))
    members = []
    for fold in range(folds):
        data = {**DATA, "group": group, "fold": fold}
        name = experiment.fold_id(group, fold)
        found = registry.choose_experiment(str(root), BASE, name, config, data)
        experiment.start_experiment(found, config, data)
        found.update(status=experiment.FINISHED)
        members.append(found)
    return members


def test_a_group_is_found_by_its_id_by_path_or_as_the_only_one(tmp_path: Path) -> None:
    members = _open_group(tmp_path)
    root = str(tmp_path)
    assert [member.model_id for member in members] == ["7-fold0", "7-fold1", "7-fold2"]
    assert registry.find_base_models(root, "7") == members
    assert registry.find_base_models(root) == members
    assert registry.find_base_models("/elsewhere", f"{root}/experiments/7/") == members
    assert registry.find_base_models(root, "7-fold1") == [members[1]]
    assert registry.find_base_models("/elsewhere", members[1].folder) == [members[1]]
    assert registry.group_name(members) == "7"
    assert registry.group_name(members[1:2]) == "7-fold1"
    assert [member.fold() for member in members] == [(3, 0), (3, 1), (3, 2)]
    (single,) = [_open(tmp_path, "9")]
    assert single.fold() == (1, 0)
    assert registry.find_base_models(root, "9") == [single]
    assert registry.group_name([single]) == "9"
    with pytest.raises(UserError, match="2 base experiments: 7, 9; say which by its id"):
        registry.find_base_models(root)


def test_an_incomplete_group_is_refused(tmp_path: Path) -> None:
    members = _open_group(tmp_path)
    members[0].update(status=experiment.TRAINING)
    (Path(members[2].folder) / "experiment.json").unlink()
    with pytest.raises(
        UserError,
        match=r"group 7 of 3 folds lacks 7-fold0, 7-fold2; go on .*train_base --model_id 7 --folds",
    ):
        registry.find_base_models(str(tmp_path), "7")


def test_a_model_and_a_group_cannot_have_the_same_id(tmp_path: Path) -> None:
    _open_group(tmp_path, "7")
    with pytest.raises(UserError, match="model_id: '7' is taken: a group of folds has it; give"):
        _open(tmp_path, "7")
    with pytest.raises(UserError, match="received '7-fold1', but ids that end so are those of"):
        _open(tmp_path, "7-fold1")
    _open(tmp_path, "9")
    with pytest.raises(UserError, match="model_id: '9' is taken: a model without folds has it"):
        _open_group(tmp_path, "9")
    assert len(_open_group(tmp_path, "7")) == 3
    assert _open(tmp_path, "9").model_id == "9"


def test_an_id_of_both_kinds_is_not_guessed_at(tmp_path: Path) -> None:
    """Training refuses it, but folders can be copied together."""
    members, single = _open_group(tmp_path / "a"), _open(tmp_path / "b")
    root = tmp_path / "a"
    copied = shutil.copytree(single.folder, root / "experiments" / Path(single.folder).name)
    with pytest.raises(UserError, match="7 is the id of an experiment and of a group of folds"):
        registry.find_base_models(str(root), "7")
    (found,) = registry.find_base_models(str(root), str(copied))
    assert found.model_id == "7"
    assert registry.find_base_models(str(root), members[2].model_id) == [members[2]]


def test_base_models_that_are_not_there(tmp_path: Path) -> None:
    root = str(tmp_path)
    with pytest.raises(UserError, match="0 base experiments: none; train one first: python -m"):
        registry.find_base_models(root)
    _open_group(tmp_path, folds=2)
    with pytest.raises(UserError, match="no base experiment '8'; there are: 7-fold0, 7-fold1;"):
        registry.find_base_models(root, "8")
    with pytest.raises(UserError, match="no base experiment '8'; there are: 7-fold0, 7-fold1;"):
        registry.find_base_models("/elsewhere", f"{root}/experiments/8")


def test_the_base_experiments_of_a_group_are_beside_the_lstm(tmp_path: Path) -> None:
    members = _open_group(tmp_path)
    ids = [member.model_id for member in members]
    data = {**DATA, "base_model_id": "7", "base_model_ids": ids}
    lstm = registry.choose_experiment(str(tmp_path), LSTM, "8", Config(), data)
    experiment.start_experiment(lstm, Config(), data)
    assert registry.base_experiments_of(lstm) == members
    assert registry.base_experiments_of(lstm)[0] == members[0]


def test_imports_stay_light() -> None:
    """What a Beam worker imports at start-up brings neither TensorFlow nor, here, Beam."""
    modules = "experiment, inference, train_base, train_sequence, evaluate, metrics, strategy"
    code = f"import sys; from trainer import {modules}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("tensorflow", "keras", "apache_beam"):
        assert f"'{name}'" not in done.stdout


def test_examples_of_another_kind_are_refused(tmp_path: Path) -> None:
    config = Config(ExamplesConfig(channels="neighbours"))
    found = _open(tmp_path, config=config)
    settings = to_mapping(config.examples)
    found.check_images("folder", settings)
    with pytest.raises(UserError, match="windows is None, but"):
        found.check_images("folder", {"image_size": 256})
    for name, value in (("channels", "windows"), ("image_size", 64), ("crop", "none")):
        with pytest.raises(UserError, match=f"folder: {name} is {value}, but .* was trained on"):
            found.check_images("folder", {**settings, name: value})
