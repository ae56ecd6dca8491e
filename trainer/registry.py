"""Finds experiments by id or path, alone or as the members of a group, and names new ones."""

import re
import time
from collections.abc import Sequence
from typing import Any

from beam_pipelines import storage
from beam_pipelines.errors import UserError, require
from beam_pipelines.layout import DataLayout
from configs import Config
from trainer.experiment import (
    BASE,
    RECORD,
    Experiment,
    check_same,
    fold_id,
    folder_name,
    group_of,
)

_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


def experiments_folder(data_dir: str, kind: str) -> str:
    """Where the experiments of a kind are."""
    layout = DataLayout(data_dir)
    return layout.experiments if kind == BASE else layout.sequence_experiments


def list_experiments(folder: str, kind: str) -> list[Experiment]:
    """The experiments in a folder, by name."""
    found = []
    for path in storage.glob(storage.join(folder, "*", RECORD)):
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
        _require_one(folder, kind, [experiment.model_id for experiment in found])
        return found[0]
    if "/" in model_id:
        return _by_path(model_id.rstrip("/"), kind)
    return _by_id(folder, kind, model_id)


def _require_one(folder: str, kind: str, names: Sequence[str]) -> None:
    """Checks that who named none can only mean one."""
    require(
        len(names) == 1,
        f"{folder}: {len(names)} {kind} experiments: {', '.join(names) or 'none'}; "
        + ("say which by its id" if names else f"train one first: {_command(kind)}"),
    )


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
        if storage.exists(storage.join(folder, name, RECORD)):
            return [_by_path(storage.join(folder, name), BASE)]
        model_id = name
    found = list_experiments(folder, BASE)
    if model_id is None:
        names = sorted({experiment.group or experiment.model_id for experiment in found})
        _require_one(folder, BASE, names)
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
        record = storage.read_json(storage.join(folder, RECORD))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {RECORD}: give the folder of a {kind} experiment, or its id"
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
        check_same(taken[model_id], config, data)
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


def members_of(experiment: Experiment) -> list[Experiment]:
    """All members of the group that an experiment is one of; itself alone where there is none.

    Raises:
        UserError: a member is missing or not trained to the end.
    """
    group = experiment.group
    if group is None:
        return [experiment]
    return find_base_models("", f"{experiment.folder.rstrip('/').rsplit('/', 1)[0]}/{group}")


def base_experiments_of(lstm: Experiment) -> list[Experiment]:
    """The base experiments that an LSTM's embeddings come from, beside it.

    Raises:
        UserError: one is not in the folder of experiments that this one is in.
    """
    experiments = lstm.folder.rstrip("/").rsplit("/", 2)[0]
    return [_by_id(experiments, BASE, model_id) for model_id in base_model_ids(lstm)]


def base_model_ids(found: Experiment) -> list[str]:
    """The base models that an experiment's probabilities come from: a base model is its own."""
    record = found.record()
    alone = record["model_id"] if found.kind == BASE else record["base_model_id"]
    return record.get("base_model_ids", [alone])
