"""Experiment folders: where a training run keeps its settings, state and model.

<data_dir>/experiments/1767225600_tf_weighted_loss_b32_e5/
    config.yaml        the whole resolved config
    versions.json      of Python and the packages
    experiment.json    model id, data fingerprints, status, history, validation losses
    checkpoints/       model, optimizer and epoch, to resume from
    tensorboard/
    model.keras        there when training has finished
    export/            a SavedModel, with --export

With `folds` above 1 a base model is a group of experiments, its members: group X of three is
X-fold0, X-fold1 and X-fold2, and "X" stands for all of them. Each has never seen the patients of
its own fold, and says in its record which group it is of.
"""

import importlib.metadata
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from beam_pipelines import storage
from beam_pipelines.errors import UserError, require
from beam_pipelines.layout import LABEL_PRIORS, TRANSFORM, DataLayout
from configs import Config, ExamplesConfig, load_config, to_yaml
from configs.loader import to_mapping

BASE = "base"
LSTM = "lstm"
TRAINING = "training"
FINISHED = "finished"
PACKAGES = ("ct-hemorrhage", "keras", "numpy", "opencv-python-headless", "tensorflow")
_RECORD = "experiment.json"
_FOLD = re.compile(r"-fold\d+$")
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


@dataclass(frozen=True)
class Experiment:
    """One experiment folder.

    Attributes:
        folder: its path, local or in a bucket.
        kind: `base` or `lstm`.
        model_id: by default the unix time at which it was made.
    """

    folder: str
    kind: str
    model_id: str

    def path(self, *names: str) -> str:
        """A path in the folder."""
        return storage.join(self.folder, *names)

    @property
    def model_file(self) -> str:
        """The trained model; there when training has finished."""
        return self.path("model.keras")

    def config(self) -> Config:
        """The settings that it is trained with."""
        return load_config(self.path("config.yaml"))

    def record(self) -> dict[str, Any]:
        """What `experiment.json` says."""
        return storage.read_json(self.path(_RECORD))

    def update(self, **values: Any) -> None:
        """Changes entries of `experiment.json`."""
        storage.write_json(self.path(_RECORD), {**self.record(), **values})

    @property
    def group(self) -> str | None:
        """The group that a base experiment is a member of, if any."""
        return self.record().get("group")

    def fold(self) -> tuple[int, int]:
        """How many folds its group has, and which of them it was not trained on.

        (1, 0) for a model of the whole train split.
        """
        record = self.record()
        return (self.config().base.folds, record["fold"]) if "group" in record else (1, 0)

    def members(self) -> "list[Experiment]":
        """All members of the group that it is one of; itself alone where there is no group.

        Raises:
            UserError: a member is missing or not trained to the end.
        """
        group = self.group
        if group is None:
            return [self]
        return find_base_models("", f"{self.folder.rstrip('/').rsplit('/', 1)[0]}/{group}")

    @property
    def exists(self) -> bool:
        """Whether it was started."""
        return storage.exists(self.path(_RECORD))

    @property
    def finished(self) -> bool:
        """Whether the model is trained."""
        return self.exists and self.record()["status"] == FINISHED

    def check_finished(self) -> None:
        """Checks that there is a model.

        Raises:
            UserError: it is not trained to the end.
        """
        require(
            self.finished,
            f"{self.folder}: training has not finished; start it again with --model_id "
            f"{self.model_id} and the same settings",
        )

    def check_images(self, folder: str, settings: Mapping[str, Any]) -> None:
        """Checks that examples show slices as those that the model was trained on.

        Args:
            folder: of the examples, for the error.
            settings: what their manifest says.

        Raises:
            UserError: size, windows, channels or crop differ.
        """
        trained_on = to_mapping(self.config().examples)
        defaults = to_mapping(ExamplesConfig())
        for name in ("image_size", "windows", "channels", "crop"):
            made = settings.get(name, defaults[name])
            require(
                made == trained_on[name],
                f"{folder}: {name} is {made}, but {self.folder} was trained on "
                f"{trained_on[name]}; run `python -m beam_pipelines.build_examples --config "
                f"{self.path('config.yaml')}` in this data root",
            )

    def label_priors(self) -> dict[str, float]:
        """The label priors that build_sequences has fitted on a base experiment's train split.

        Raises:
            UserError: they are missing.
        """
        path = self.path(TRANSFORM, LABEL_PRIORS)
        try:
            return storage.read_json(path)
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such file; run `python -m beam_pipelines.build_sequences "
                f"--model_id {self.group or self.model_id}` first"
            ) from None

    def base_experiments(self) -> "list[Experiment]":
        """The base experiments that an LSTM's embeddings come from, beside it.

        Raises:
            UserError: one is not in the folder of experiments that this one is in.
        """
        experiments = self.folder.rstrip("/").rsplit("/", 2)[0]
        record = self.record()
        ids = record.get("base_model_ids", [record["base_model_id"]])
        return [_by_id(experiments, BASE, model_id) for model_id in ids]

    def base_experiment(self) -> "Experiment":
        """The first of them: what is fitted on the train split is the same in all."""
        return self.base_experiments()[0]


def experiments_folder(data_dir: str, kind: str) -> str:
    """Where the experiments of a kind are."""
    layout = DataLayout(data_dir)
    return layout.experiments if kind == BASE else layout.sequence_experiments


def list_experiments(folder: str, kind: str) -> list[Experiment]:
    """The experiments in a folder, by name."""
    found = []
    for path in storage.glob(storage.join(folder, "*", _RECORD)):
        record = storage.read_json(path)
        if record["kind"] == kind:
            found.append(Experiment(path.rsplit("/", 1)[0], kind, record["model_id"]))
    return found


def find_experiment(data_dir: str, kind: str, model_id: str | None = None) -> Experiment:
    """Finds an experiment.

    Args:
        data_dir: the data root.
        kind: `base` or `lstm`.
        model_id: an id in the data root, or the path of an experiment folder anywhere; None for
            the only experiment in the data root.

    Raises:
        UserError: there is none; lists the ids that there are.
    """
    folder = experiments_folder(data_dir, kind)
    if model_id is None:
        found = list_experiments(folder, kind)
        ids = ", ".join(experiment.model_id for experiment in found) or "none"
        require(
            len(found) == 1,
            f"{folder}: {len(found)} {kind} experiments: {ids}; "
            + ("say which by its id" if found else f"train one first: {_command(kind)}"),
        )
        return found[0]
    if "/" in model_id:
        return _by_path(model_id.rstrip("/"), kind)
    return _by_id(folder, kind, model_id)


def fold_id(model_id: str, fold: int) -> str:
    """The id of a group's member."""
    return f"{model_id}-fold{fold}"


def group_of(model_id: str) -> str:
    """The id of the group that a member's id names; any other id itself."""
    return _FOLD.sub("", model_id)


def find_base_models(data_dir: str, model_id: str | None = None) -> list[Experiment]:
    """Finds a base experiment, or the members of a group in the order of their folds.

    Args:
        data_dir: the data root.
        model_id: an id of an experiment or a group in the data root, or the path of an
            experiment's folder anywhere, or such a path that ends in the id of a group; None for
            the only experiment or group in the data root.

    Returns:
        One experiment, or all members of a group.

    Raises:
        UserError: there is none, or a member is missing or not trained to the end.
    """
    folder = experiments_folder(data_dir, BASE)
    if model_id is not None and "/" in model_id:
        folder, name = model_id.rstrip("/").rsplit("/", 1)
        if storage.exists(storage.join(folder, name, _RECORD)):
            return [_by_path(storage.join(folder, name), BASE)]
        model_id = name
    found = list_experiments(folder, BASE)
    if model_id is None:
        names = sorted({experiment.group or experiment.model_id for experiment in found})
        require(
            len(names) == 1,
            f"{folder}: {len(names)} base experiments: {', '.join(names) or 'none'}; "
            + ("say which by its id" if names else f"train one first: {_command(BASE)}"),
        )
        model_id = names[0]
    members = [experiment for experiment in found if experiment.group == model_id]
    if not members:
        return [_by_id(folder, BASE, model_id)]
    require(
        all(experiment.model_id != model_id for experiment in found),
        f"{folder}: {model_id} is the id of an experiment and of a group of folds; give the path "
        "of the experiment's folder, or train the group under another id",
    )
    return _whole_group(folder, model_id, members)


def _whole_group(folder: str, group: str, members: Sequence[Experiment]) -> list[Experiment]:
    finished = {member.fold()[1]: member for member in members if member.finished}
    folds = members[0].fold()[0]
    missing = [fold_id(group, fold) for fold in range(folds) if fold not in finished]
    require(
        not missing,
        f"{folder}: group {group} of {folds} folds lacks {', '.join(missing)}; go on with its "
        f"training: {_command(BASE)} --model_id {group} --folds {folds}",
    )
    return [finished[fold] for fold in range(folds)]


def group_name(experiments: Sequence[Experiment]) -> str:
    """What names base experiments together: the id of the only one, or that of their group."""
    first = experiments[0]
    return (first.group or first.model_id) if len(experiments) > 1 else first.model_id


def _by_path(folder: str, kind: str) -> Experiment:
    try:
        record = storage.read_json(storage.join(folder, _RECORD))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {_RECORD}: give the folder of a {kind} experiment, or its id"
        ) from None
    require(
        record["kind"] == kind,
        f"{folder}: a {record['kind']} experiment; give the folder of a {kind} experiment",
    )
    return Experiment(folder, kind, record["model_id"])


def _by_id(folder: str, kind: str, model_id: str) -> Experiment:
    found = list_experiments(folder, kind)
    for experiment in found:
        if experiment.model_id == model_id:
            return experiment
    ids = ", ".join(experiment.model_id for experiment in found) or "none"
    raise UserError(
        f"{folder}: no {kind} experiment {model_id!r}; there are: {ids}; give one of them or "
        f"train it: {_command(kind)}"
    )


def _command(kind: str) -> str:
    return f"python -m trainer.{'train_base' if kind == BASE else 'train_sequence'}"


def folder_name(kind: str, model_id: str, config: Config) -> str:
    """The name of an experiment's folder: the id and what one compares experiments by."""
    if kind == BASE:
        base = config.base
        return f"{model_id}_tf_{base.loss}_b{base.batch_size}_e{base.num_epochs}"
    lstm = config.sequence
    return f"{model_id}_b{lstm.batch_size}_e{lstm.num_epochs}_l{lstm.num_layers}_cs{lstm.cell_size}"


def new_model_id(data_dir: str, kind: str) -> str:
    """The time, as an id that neither an experiment nor a group has."""
    found = list_experiments(experiments_folder(data_dir, kind), kind)
    taken = {group_of(experiment.model_id) for experiment in found}
    now = int(time.time())
    return str(next(t for t in range(now, now + len(taken) + 1) if str(t) not in taken))


def choose_experiment(
    data_dir: str,
    kind: str,
    model_id: str | None,
    config: Config,
    data: dict[str, Any],
) -> Experiment:
    """Names a new experiment, or finds the one that was started with the same id and settings.

    Nothing is written.

    Args:
        data_dir: the data root.
        kind: `base` or `lstm`.
        model_id: an id; None for a new one, the time.
        config: the resolved settings.
        data: what else must be the same to resume: fingerprints and, for an LSTM, the base model.

    Raises:
        UserError: the id is taken by an experiment with other settings or data.
    """
    folder = experiments_folder(data_dir, kind)
    taken = {experiment.model_id: experiment for experiment in list_experiments(folder, kind)}
    if model_id is None:
        model_id = new_model_id(data_dir, kind)
    require(
        _MODEL_ID.fullmatch(model_id) is not None,
        f"model_id: received {model_id!r}; give letters, digits, points and dashes",
    )
    if kind == BASE:
        _check_name(model_id, data.get("group"), set(taken))
    if model_id in taken:
        _check_same(taken[model_id], config, data)
        return taken[model_id]
    return Experiment(storage.join(folder, folder_name(kind, model_id, config)), kind, model_id)


def _check_name(model_id: str, group: str | None, taken: set[str]) -> None:
    """Checks that an id cannot be taken for that of a group, or a group's for that of a model."""
    name = group_of(model_id)
    require(
        group is not None or name == model_id,
        f"model_id: received {model_id!r}, but ids that end so are those of the members of a group "
        f"of folds; give another, or {name!r} with the group's number of --folds",
    )
    if group is None:
        clash = any(group_of(other) == name for other in taken - {name})
    else:
        clash = group in taken
    require(
        not clash,
        f"model_id: {name!r} is taken: {'a group of' if group is None else 'a model without'} "
        "folds has it; give another, or the settings that it was trained with",
    )


def start_experiment(experiment: Experiment, config: Config, data: dict[str, Any]) -> None:
    """Makes the folder of an experiment, unless it was started before."""
    if experiment.exists:
        return
    storage.write_text(experiment.path("config.yaml"), to_yaml(config))
    storage.write_json(experiment.path("versions.json"), package_versions())
    record = {
        "kind": experiment.kind,
        "model_id": experiment.model_id,
        "status": TRAINING,
        "history": [],
        **data,
    }
    # Last: an experiment exists when its record does.
    storage.write_json(experiment.path(_RECORD), record)


def _check_same(experiment: Experiment, config: Config, data: dict[str, Any]) -> None:
    section = "base" if experiment.kind == BASE else "sequence"
    record = experiment.record()
    saved = yaml.safe_load(to_yaml(getattr(experiment.config(), section)))
    given = yaml.safe_load(to_yaml(getattr(config, section)))
    differing = [f"{k} (was {saved[k]}, now {v})" for k, v in given.items() if saved[k] != v]
    differing += [
        f"{k} (was {record.get(k)}, now {v})" for k, v in data.items() if record.get(k) != v
    ]
    require(
        not differing,
        f"{experiment.folder}: experiment {experiment.model_id} was started with other settings: "
        f"{'; '.join(differing)}; give the same settings to resume it, or another --model_id",
    )


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a model depends on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions}
