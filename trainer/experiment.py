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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from beam_pipelines import storage
from beam_pipelines.errors import UserError, require
from beam_pipelines.layout import LABEL_PRIORS, TRANSFORM
from configs import Config, load_config, to_yaml
from configs.loader import to_mapping

BASE = "base"
LSTM = "lstm"
TRAINING = "training"
FINISHED = "finished"
PACKAGES = ("ct-hemorrhage", "keras", "numpy", "opencv-python-headless", "tensorflow")
RECORD = "experiment.json"
_FOLD = re.compile(r"-fold\d+$")


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
        return storage.read_json(self.path(RECORD))

    def update(self, **values: Any) -> None:
        """Changes entries of `experiment.json`."""
        storage.write_json(self.path(RECORD), {**self.record(), **values})

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

    @property
    def exists(self) -> bool:
        """Whether it was started."""
        return storage.exists(self.path(RECORD))

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
        for name in ("image_size", "windows", "channels", "crop"):
            made = settings.get(name)
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


def fold_id(model_id: str, fold: int) -> str:
    """The id of a group's member."""
    return f"{model_id}-fold{fold}"


def group_of(model_id: str) -> str:
    """The id of the group that a member's id names; any other id itself."""
    return _FOLD.sub("", model_id)


def folder_name(kind: str, model_id: str, config: Config) -> str:
    """The name of an experiment's folder: the id and what one compares experiments by."""
    if kind == BASE:
        base = config.base
        return f"{model_id}_tf_{base.loss}_b{base.batch_size}_e{base.num_epochs}"
    lstm = config.sequence
    return f"{model_id}_b{lstm.batch_size}_e{lstm.num_epochs}_l{lstm.num_layers}_cs{lstm.cell_size}"


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
    storage.write_json(experiment.path(RECORD), record)


def check_same(experiment: Experiment, config: Config, data: dict[str, Any]) -> None:
    """Checks that an experiment was started with these settings and data.

    Raises:
        UserError: lists what differs.
    """
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
