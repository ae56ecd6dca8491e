"""One screen on a data root: slices, validation losses of the three models, the predictions."""

import sys
from collections.abc import Sequence
from typing import Any

from beam_pipelines import options, shards, storage
from beam_pipelines.errors import UserError, require
from beam_pipelines.examples import HOW_TO_MAKE
from beam_pipelines.layout import SPLITS, DataLayout
from beam_pipelines.metadata import read_metadata_manifest
from beam_pipelines.quarantine import read_quarantine
from trainer.evaluate import OUTPUT
from trainer.evaluation import FORMAT_VERSION, PRIOR, SLICE, WEIGHTED
from trainer.experiment import BASE, LSTM
from trainer.registry import find_experiment

_DESCRIPTION = """\
Prints what a run has made of an archive: slices in, written and quarantined; the validation losses
of the prior baseline, the base model and the sequence model; where the predictions are.
"""
_MODELS = {PRIOR: "prior baseline", BASE: "base model", LSTM: "sequence model"}


def slice_lines(layout: DataLayout) -> list[str]:
    """How many slices came in, and what became of them."""
    num_members = read_metadata_manifest(layout)["num_members"]
    manifests = {s: shards.read_manifest(layout.examples(s), HOW_TO_MAKE) for s in SPLITS}
    written = sum(manifest["num_slices"] for manifest in manifests.values())
    bad = [
        (stage, slice_)
        for stage in ("extract_metadata", "build_examples")
        for slice_ in read_quarantine(layout, stage)
    ]
    lines = [f"slices          {num_members} in, {written} written, {len(bad)} quarantined"]
    lines += [
        f"  {split:<12}  {m['num_slices']} slices, {m['num_series']} series, "
        f"{m['num_patients']} patients"
        for split, m in manifests.items()
    ]
    lines += [f"  quarantined   {slice_.member_name}: {slice_.reason}" for _, slice_ in bad[:3]]
    if len(bad) > 3:
        lines.append(f"  ... and {len(bad) - 3} more; see {layout.path('quarantine')}")
    return lines


def weighted_losses(evaluation: dict[str, Any]) -> list[float]:
    """The weighted log loss over slices of each model of _MODELS."""
    return [evaluation["models"][name][SLICE][WEIGHTED]["value"] for name in _MODELS]


def loss_lines(evaluation: dict[str, Any]) -> list[str]:
    """The validation losses side by side."""
    return [
        f"validation      weighted log loss on {evaluation['num_slices']} slices of "
        f"{evaluation['num_patients']} patients never trained on",
        "  " + "".join(f"{title:>18}" for title in _MODELS.values()),
        "  " + "".join(f"{loss:>18.4f}" for loss in weighted_losses(evaluation)),
    ]


def losses_fall(evaluation: dict[str, Any]) -> bool:
    """Whether each model is better than the one before it."""
    prior, base, lstm = weighted_losses(evaluation)
    return prior > base > lstm


def read_evaluation(path: str) -> dict[str, Any]:
    """What trainer.evaluate has written.

    Raises:
        UserError: there is no such file, or another version has written it.
    """
    try:
        evaluation = storage.read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run python -m trainer.evaluate first") from None
    found = evaluation.get("format_version", 1)
    require(
        found == FORMAT_VERSION,
        f"{path}: of format {found}, not {FORMAT_VERSION}; run python -m trainer.evaluate again",
    )
    return evaluation


def run(argv: Sequence[str] | None = None) -> None:
    """Prints the summary; see `--help`."""
    parser = options.make_parser("launch.summary", _DESCRIPTION, beam=False)
    options.add_data_dir(parser)
    options.add_model_id(parser, "sequence")
    parser.add_argument(
        "--check_order",
        action="store_true",
        help="fail unless the losses fall from prior to base to sequence model",
    )
    args = options.parse_all(parser, argv)
    layout = DataLayout(args.data_dir)
    experiment = find_experiment(args.data_dir, LSTM, args.model_id)
    evaluation = read_evaluation(experiment.path(OUTPUT))
    lines = [*slice_lines(layout), *loss_lines(evaluation)]
    if storage.exists(layout.prediction_csv):
        lines.append(f"predictions     {layout.prediction_csv}")
    lines.append("\nResearch use only: not a medical device.")
    print("\n" + "\n".join(lines))
    if args.check_order and not losses_fall(evaluation):
        print("error: the losses do not fall from prior to base to sequence model", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    options.main_entry(run)
