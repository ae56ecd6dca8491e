"""Judges prior baseline, base model and sequence model on the validation split, side by side.

Reads the validation sequences and the label priors of one base model, writes evaluation.json into
the sequence experiment and prints a table: weighted log loss (the challenge's metric) and log
loss of each subtype. No slice of a validation patient took part in fitting anything.

    python -m trainer.evaluate --data_dir DATA
"""

from typing import Any

import numpy as np

from beam_pipelines import schema, storage
from beam_pipelines.errors import exit_with, require
from beam_pipelines.tensorflow_setup import load_tensorflow
from trainer import command, experiment, metrics, shard_files
from trainer.experiment import Experiment
from trainer.shard_files import ShardFolder

PRIOR = "prior"
WEIGHTED = "weighted_log_loss"


def main() -> None:
    """Parses flags, judges and prints the table."""
    parser = command.make_parser("trainer.evaluate", __doc__)
    parser.add_argument(
        "--base_model_id",
        help="the base experiment (default: the one that the sequence model was trained on)",
    )
    parser.add_argument(
        "--model_id",
        help="the sequence experiment, an id or a folder (default: the only one there is)",
    )
    flags = parser.parse_args()
    found = experiment.find_experiment(flags.data_dir, experiment.LSTM, flags.model_id)
    print(table(evaluate(flags.data_dir, found, flags.base_model_id)))


def evaluate(data_dir: str, found: Experiment, base_model_id: str | None = None) -> dict[str, Any]:
    """Judges the three models and writes `evaluation.json` into the sequence experiment.

    Args:
        data_dir: the data root whose validation split to judge on.
        found: the sequence experiment.
        base_model_id: a check; the base model is the one that the experiment was trained on.

    Returns:
        What it wrote: ids, counts, and `losses[model][name]` for the models prior, base and lstm.

    Raises:
        UserError: the sequences are missing, or are another base model's.
    """
    trained_on = found.record()["base_model_id"]
    require(
        base_model_id in (None, trained_on),
        f"base_model_id: received {base_model_id!r}, but {found.folder} was trained on the "
        f"embeddings of {trained_on}; leave the flag out or give another --model_id",
    )
    splits = shard_files.read_sequences(data_dir, trained_on)
    priors = found.base_experiment().label_priors()
    labels, probabilities = _predict(found, splits.validation, priors)
    report = {
        "base_model_id": trained_on,
        "model_id": found.model_id,
        "split": "validation",
        "data_fingerprint": splits.validation.fingerprint,
        "num_patients": splits.validation.num_patients,
        "num_slices": len(labels),
        "losses": {name: losses_of(labels, values) for name, values in probabilities.items()},
    }
    storage.write_json(found.path("evaluation.json"), report)
    return report


def _predict(
    found: Experiment, folder: ShardFolder, priors: dict[str, float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels of the labelled slices and each model's probabilities, all (num_slices, 6)."""
    load_tensorflow()
    from trainer import inference, input_pipeline, judging

    scorer = inference.load_sequence(found)
    slices = judging.SequenceSlices(folder)
    batches = input_pipeline.evaluation_sequences(folder, scorer.batch_size)
    logits = np.concatenate([scorer(batch) for batch in batches.as_numpy_iterator()])
    labels, base = slices.by_image(metrics.sigmoid(slices.base_logits))
    _, sequence = slices.by_image(metrics.sigmoid(logits))
    prior = np.array([priors[name] for name in schema.SUBTYPES])
    return labels, {
        PRIOR: np.broadcast_to(prior, labels.shape),
        experiment.BASE: base,
        experiment.LSTM: sequence,
    }


def losses_of(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Weighted log loss and log loss of each subtype."""
    weighted = metrics.weighted_log_loss(labels, probabilities)
    return {WEIGHTED: weighted, **metrics.log_losses(labels, probabilities)}


def table(report: dict[str, Any]) -> str:
    """The report for people: a line for each loss, a column for each model."""
    losses = report["losses"]
    lines = [
        f"validation: {report['num_slices']} slices of {report['num_patients']} patients",
        f"{'log loss':<18}" + "".join(f"{name:>10}" for name in losses),
    ]
    for row in (WEIGHTED, *schema.SUBTYPES):
        values = "".join(f"{losses[name][row]:>10.4f}" for name in losses)
        lines.append(f"{row.removesuffix('_log_loss'):<18}{values}")
    return "\n".join(lines)


if __name__ == "__main__":
    exit_with(main)
