"""Judges prior baseline, base model and sequence model on a labelled split, side by side.

Reads the split's sequences (with --model_type base, its embeddings) of the models and the label
priors, writes evaluation.json into the experiment and prints a table of it: weighted log loss (the
challenge's metric) with bootstrap intervals over patients; log loss, ROC AUC, average precision and
calibration error of each subtype; of slices and of studies; as the models say it and tempered.

No validation patient took part in fitting the models, but for the choice of the best epoch.

    python -m trainer.evaluate --data_dir DATA
    python -m trainer.evaluate --data_dir OTHER --model_id DATA/experiments/lstm/1767225601_...
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from beam_pipelines import shards, storage
from beam_pipelines.errors import exit_with, require
from beam_pipelines.layout import LABEL_PRIORS, TRANSFORM
from trainer import command, experiment, registry, scoring, shard_files
from trainer.bootstrap import Bootstrap
from trainer.evaluation import FORMAT_VERSION, evaluate_predictions
from trainer.evaluation_table import table
from trainer.experiment import Experiment
from trainer.shard_files import ShardFolder

VALIDATION, TRAIN = "validation", "train"
OUTPUT = "evaluation.json"


def main() -> None:
    """Parses flags, judges and prints the table."""
    flags = _parser().parse_args()
    require(
        flags.bootstrap >= 0, f"--bootstrap: received {flags.bootstrap}; give a number, at least 0"
    )
    if flags.model_type == experiment.BASE:
        bases = registry.find_base_models(flags.data_dir, flags.model_id)
        found, members = bases[0], [base.model_id for base in bases]
    else:
        found = registry.find_experiment(flags.data_dir, experiment.LSTM, flags.model_id)
        members = registry.base_model_ids(found)
    require(
        flags.base_model_id in (None, experiment.group_of(members[0]), *members),
        f"base_model_id: received {flags.base_model_id!r}, but {found.folder} is made of "
        f"{', '.join(members)}; leave the flag out or give another --model_id",
    )
    report, path = evaluate(flags.data_dir, found, flags.split, Bootstrap(flags.bootstrap), members)
    print(table(report))
    print(f"\nwrote {path}")


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("trainer.evaluate", __doc__)
    parser.add_argument(
        "--model_type",
        choices=(experiment.LSTM, experiment.BASE),
        default=experiment.LSTM,
        help="lstm: the sequence model and its base model; base: the base model alone, from its "
        "embeddings (default: %(default)s)",
    )
    parser.add_argument(
        "--model_id",
        help="the experiment, an id or a folder, also in another data root; of a group of folds "
        "its id (default: the only one there is)",
    )
    parser.add_argument(
        "--base_model_id",
        help="only a check: the base experiment that the sequence model was trained on",
    )
    parser.add_argument(
        "--split",
        choices=(VALIDATION, TRAIN),
        default=VALIDATION,
        help="which split; train is for another data root, whose patients the models have never "
        "seen (default: %(default)s)",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=Bootstrap().resamples,
        metavar="RESAMPLES",
        help="resamples of patients for 95%% intervals; 0: none (default: %(default)s)",
    )
    return parser


def evaluate(
    data_dir: str,
    found: Experiment,
    split: str = VALIDATION,
    bootstrap: Bootstrap | None = None,
    members: Sequence[str] | None = None,
) -> tuple[dict[str, Any], str]:
    """Judges the models and writes the report into the experiment.

    Args:
        data_dir: the data root whose split to judge on; no other split is read.
        found: the experiment, `lstm` or `base`; of a group of base models the first.
        split: `validation` or `train`.
        bootstrap: how to make intervals; None for the defaults.
        members: ids of the base models whose probabilities are averaged; the experiment's own
            when None.

    Returns:
        The report, whose entries trainer/evaluation.py describes, and where it is.

    Raises:
        UserError: shards are missing, or those that the model was trained on.
    """
    members = list(members or registry.base_model_ids(found))
    folders = scoring.read_members(data_dir, found, split, members)
    _refuse_training_data(data_dir, found, split, folders)
    priors = _label_priors(found)
    predictions = scoring.predict_split(found, folders)
    alone = found.kind == experiment.LSTM or len(members) == 1
    report = {
        "format_version": FORMAT_VERSION,
        "model_type": found.kind,
        "model_id": found.model_id if alone else experiment.group_of(members[0]),
        "base_model_ids": members,
        "split": split,
        "data_fingerprint": _fingerprint(folders),
        **evaluate_predictions(predictions, priors, bootstrap or Bootstrap()),
    }
    name = _file_name(data_dir, found, split, report["data_fingerprint"])
    path = found.path(name if alone else f"group-{name}")
    storage.write_json(path, report)
    return report, path


def _fingerprint(folders: Sequence[ShardFolder]) -> str:
    """Of the shards of all members."""
    found = [folder.fingerprint for folder in folders]
    return found[0] if len(found) == 1 else shards.fingerprint(found)


def _in_data_root(data_dir: str, found: Experiment) -> bool:
    """Whether an experiment is of this data root, and so was trained on it."""

    def absolute(path: str) -> str:
        return storage.filesystem(path)[1].rstrip("/")

    parent = found.folder.rstrip("/").rsplit("/", 1)[0]
    return absolute(parent) == absolute(registry.experiments_folder(data_dir, found.kind))


def _refuse_training_data(
    data_dir: str, found: Experiment, split: str, folders: Sequence[ShardFolder]
) -> None:
    """Refuses the data that the model was trained on, also where they are a copy.

    Refused rather than marked: who reads evaluation.json or a table copied from it takes its
    figures for those of unseen patients.

    Raises:
        UserError: the split is the train split of the experiment's data root, or was made of what
            a model was trained on, or patients of the data root have been divided anew.
    """
    bases = [found] if found.kind == experiment.BASE else registry.base_experiments_of(found)
    trained_on = {model.record()["data_fingerprints"][TRAIN] for model in (found, *bases)}
    # Shards say which examples they are of; base models were trained on examples.
    examples = {folder.settings["examples_fingerprint"] for folder in folders}
    seen = {_fingerprint(folders), *(folder.fingerprint for folder in folders), *examples}
    own = _in_data_root(data_dir, found)
    require(
        not trained_on & seen and not (split == TRAIN and own),
        f"{folders[0].folder}: {found.folder} was trained on these patients, so their figures say "
        f"nothing of others; give --split {VALIDATION} or the --data_dir of other patients",
    )
    require(
        not own or examples == {bases[0].record()["data_fingerprints"][VALIDATION]},
        f"{folders[0].folder}: made of other examples than {bases[0].folder} was judged by; "
        "patients may have been divided anew, and training patients be among these: train again, "
        f"or run `{shard_files.BUILD_EXAMPLES}` with its settings and the stages after it",
    )


def _label_priors(found: Experiment) -> dict[str, float] | None:
    """The train split's priors; None, with a warning, where a base model has none yet.

    Fitting them takes the embeddings of the whole train split, which judging a base model does not.
    """
    base = found if found.kind == experiment.BASE else registry.base_experiments_of(found)[0]
    path = base.path(TRANSFORM, LABEL_PRIORS)
    if found.kind == experiment.BASE and not storage.exists(path):
        print(f"warning: {path}: no such file; no prior baseline", file=sys.stderr)
        return None
    return base.label_priors()


def _file_name(data_dir: str, found: Experiment, split: str, fingerprint: str) -> str:
    """Figures on other data do not replace those on the experiment's own validation split."""
    if split == VALIDATION and _in_data_root(data_dir, found):
        return OUTPUT
    return f"evaluation-{split}-{fingerprint[:8]}.json"


if __name__ == "__main__":
    exit_with(main)
