"""Makes the rows of the quality comparison: trains with the product's own functions, and scores.

Each function runs in a worker process and leaves what it found in the row's result: figures as
JSON, labels and logits as .npz. All paths go through the stages a user would run: a base model is
judged by the logits that extract_embeddings writes, a sequence model on what build_sequences makes
of the judge set.
"""

import datetime
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beam_pipelines import schema, storage
from beam_pipelines.layout import DataLayout
from benchmarks import quality_metrics, quality_rows
from benchmarks.bench import code_fingerprint
from benchmarks.quality_data import JUDGE, TRAIN, Workspace
from benchmarks.quality_rows import ROWS, Row, config_of, key_of, model_id_of
from configs import to_yaml
from configs.loader import to_mapping
from trainer import calibration, metrics

if TYPE_CHECKING:
    from trainer.experiment import Experiment

# Labels 0 or 1 and logits, each of shape (num_slices, 6).
Predictions = tuple[np.ndarray, np.ndarray]


def make_row(workspace: Workspace, row: Row, seed: int) -> None:
    """Makes a row for one seed and writes its result."""
    make: Callable[[Workspace, Row, int], dict[str, Any]] = {
        quality_rows.PRIOR: _prior,
        quality_rows.TRAIN_BASE: _train_base,
        quality_rows.RESCORE_BASE: _rescore_base,
        quality_rows.TRAIN_SEQUENCE: _train_sequence,
        quality_rows.SCALE: _scale,
    }[row.how]
    _forget(workspace, row, seed)
    started = time.monotonic()
    found = make(workspace, row, seed)
    result = {
        "row": row.name,
        "seed": seed,
        "key": key_of(row, workspace.sizes, seed),
        "code": code_fingerprint(),
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.monotonic() - started, 1),
        "config": to_mapping(config_of(row, workspace.sizes, seed)),
        **found,
    }
    storage.write_json(str(workspace.result(row.name, seed)), result)


def _forget(workspace: Workspace, row: Row, seed: int) -> None:
    """Removes what a finished row has left: made again, it is trained again.

    Of a row that was interrupted there is no result, and its training goes on.
    """
    result = workspace.result(row.name, seed)
    if not result.exists():
        return
    experiments = Path(_roots(workspace, row, seed)[0]) / "experiments"
    model_id = model_id_of(row, workspace.sizes, seed)
    for folder in (*experiments.glob(f"{model_id}*"), *experiments.glob(f"lstm/{model_id}*")):
        shutil.rmtree(folder)
    result.unlink()


def _prior(workspace: Workspace, row: Row, seed: int) -> dict[str, Any]:
    from trainer import shard_files

    root = _roots(workspace, row, seed)[0]
    train = shard_files.read_folder(DataLayout(root).examples("train"), "make quality")
    priors = shard_files.label_priors(train)
    labels, _ = _saved(workspace, quality_rows.PLAIN, seed)
    logits = calibration.to_logits(np.array([priors[name] for name in schema.SUBTYPES]))
    return _save(workspace, row, seed, (labels, np.broadcast_to(logits, labels.shape)))


def _train_base(workspace: Workspace, row: Row, seed: int) -> dict[str, Any]:
    from trainer.train_base import train_base

    root, judge = _roots(workspace, row, seed)
    model_id = model_id_of(row, workspace.sizes, seed)
    train_base(root, config_of(row, workspace.sizes, seed), model_id)
    return _save(workspace, row, seed, _score_base(workspace, row, seed, judge))


def _rescore_base(workspace: Workspace, row: Row, seed: int) -> dict[str, Any]:
    """Scores a copy of another row's experiment that differs in its settings alone."""
    from trainer import experiment, registry

    assert row.made_from is not None
    root, judge = _roots(workspace, row, seed)
    source = registry.find_experiment(
        root, experiment.BASE, model_id_of(ROWS[row.made_from], workspace.sizes, seed)
    )
    model_id = model_id_of(row, workspace.sizes, seed)
    target = experiment.Experiment(f"{root}/experiments/{model_id}", experiment.BASE, model_id)
    unused = shutil.ignore_patterns("checkpoints", "tensorboard", "transform")
    shutil.copytree(source.folder, target.folder, ignore=unused, dirs_exist_ok=True)
    config = config_of(row, workspace.sizes, seed)
    storage.write_text(target.path("config.yaml"), to_yaml(config))
    target.update(model_id=model_id)
    return _save(workspace, row, seed, _score_base(workspace, row, seed, judge))


def prepare_sequences(workspace: Workspace, base_row: Row, seed: int) -> None:
    """Makes sequences of both sets for a base row's model; what is there already is kept."""
    from beam_pipelines import build_sequences

    root, judge = _roots(workspace, base_row, seed)
    max_to_keep = config_of(base_row, workspace.sizes, seed).sequence.max_to_keep

    def build(data_dir: str, model: str, splits: list[str]) -> None:
        _embed(data_dir, model, splits)
        place = ["--data_dir", data_dir, "--model_id", model, "--base_data", *splits]
        build_sequences.run([*place, "--max_to_keep", str(max_to_keep)])

    # The train set first, and all members of a group together: it fits the transform.
    build(root, model_id_of(base_row, workspace.sizes, seed), ["train", "validation"])
    for member in _members(workspace, base_row, seed):
        build(judge, member.folder, ["validation"])


def _train_sequence(workspace: Workspace, row: Row, seed: int) -> dict[str, Any]:
    from trainer.train_sequence import train_sequence

    assert row.made_from is not None
    root, judge = _roots(workspace, row, seed)
    base_row = ROWS[row.made_from]
    base_id = model_id_of(base_row, workspace.sizes, seed)
    model_id = model_id_of(row, workspace.sizes, seed)
    trained = train_sequence(root, config_of(row, workspace.sizes, seed), base_id, model_id)
    base_ids = [member.model_id for member in _members(workspace, base_row, seed)]
    judged, chosen_by = (_score(trained, place, base_ids) for place in (judge, root))
    return _save(workspace, row, seed, judged, chosen_by)


def _scale(workspace: Workspace, row: Row, seed: int) -> dict[str, Any]:
    """Fits a temperature on the train set's validation split and applies it to the judge set."""
    assert row.made_from is not None
    source = ROWS[row.made_from]
    if source.how == quality_rows.TRAIN_SEQUENCE:
        fitted_on = _saved(workspace, source.name, seed, "chosen_by")
    else:
        root = _roots(workspace, source, seed)[0]
        fitted_on = _score_base(workspace, source, seed, root)
    fitted_labels, fitted_logits = fitted_on
    temperature = calibration.fit_temperature(fitted_labels, metrics.sigmoid(fitted_logits))
    labels, logits = _saved(workspace, source.name, seed)
    found = _save(workspace, row, seed, (labels, logits / temperature))
    return {**found, "temperature": temperature}


def _roots(workspace: Workspace, row: Row, seed: int) -> tuple[str, str]:
    examples = config_of(row, workspace.sizes, seed).examples
    train, judge = (str(workspace.root(seed, name, examples)) for name in (TRAIN, JUDGE))
    return train, judge


def _members(workspace: Workspace, row: Row, seed: int) -> "list[Experiment]":
    """A row's base model, or the members of its group: X-fold0, X-fold1, ..."""
    from trainer import registry

    root = _roots(workspace, row, seed)[0]
    return registry.find_base_models(root, model_id_of(row, workspace.sizes, seed))


def _embed(data_dir: str, model: str, splits: list[str]) -> None:
    from beam_pipelines import extract_embeddings

    extract_embeddings.run(["--data_dir", data_dir, "--model_id", model, "--base_data", *splits])


def _score_base(workspace: Workspace, row: Row, seed: int, data_dir: str) -> Predictions:
    """Labels and logits of the labelled validation slices of a data root, members averaged."""
    members = _members(workspace, row, seed)
    for member in members:
        _embed(data_dir, member.folder, ["validation"])
    return _score(members[0], data_dir, [member.model_id for member in members])


def _score(found: "Experiment", data_dir: str, base_ids: list[str]) -> Predictions:
    """Labels and logits of the labelled validation slices, windows and members averaged."""
    from trainer import scoring

    folders = scoring.read_members(data_dir, found, "validation", base_ids)
    judged = scoring.predict_split(found, folders)
    probabilities = judged.base if judged.lstm is None else judged.lstm
    return judged.labels, calibration.to_logits(probabilities)


def _save(
    workspace: Workspace,
    row: Row,
    seed: int,
    judged: Predictions,
    chosen_by: Predictions | None = None,
) -> dict[str, Any]:
    """Keeps predictions beside the result and returns the figures of the judged ones."""
    arrays = {"labels": judged[0], "logits": judged[1]}
    if chosen_by is not None:
        arrays.update(chosen_by_labels=chosen_by[0], chosen_by_logits=chosen_by[1])
    path = workspace.result(row.name, seed).with_suffix(".npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return {"num_slices": len(judged[0]), **quality_metrics.figures(*judged)}


def _saved(workspace: Workspace, row: str, seed: int, of: str = "") -> Predictions:
    prefix = f"{of}_" if of else ""
    with np.load(workspace.result(row, seed).with_suffix(".npz")) as arrays:
        return arrays[f"{prefix}labels"], arrays[f"{prefix}logits"]
