"""Scores every slice of the test split and writes the submission CSV."""

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from beam_pipelines import options, runs, shards
from beam_pipelines.embeddings import check_images, file_fingerprint
from beam_pipelines.errors import UserError
from beam_pipelines.examples import HOW_TO_MAKE as HOW_TO_MAKE_EXAMPLES
from beam_pipelines.layout import DataLayout
from beam_pipelines.predictions import (
    STAGE,
    PredictionBuilder,
    ShardToScore,
    shards_to_score,
)
from beam_pipelines.progress import report
from beam_pipelines.schema import SUBTYPES
from beam_pipelines.sequence_shards import HOW_TO_MAKE as HOW_TO_MAKE_SEQUENCES
from beam_pipelines.submission import PublishPredictions, expected_image_ids

if TYPE_CHECKING:
    from trainer.experiment import Experiment

_DESCRIPTION = """\
Scores every slice of the test split and writes ID,Label: six rows a slice, one a subtype, as
Kaggle's submission has them. The file appears only when every slice that the metadata lists is in
it once. A slice in quarantine has no pixels to score; its rows hold the train split's label priors.
Of a group of folds every member is asked, and the mean is what counts.

Reads  with --model_type lstm: sequences/<base model id>/test/; with base: test/;
       the metadata, the quarantine and the experiment.
Writes --output; predictions/ under --data_dir holds the parts that it is merged from.

Research use only: not a medical device.
"""


def _make_parser() -> argparse.ArgumentParser:
    parser = options.make_parser("beam_pipelines.predict", _DESCRIPTION)
    options.add_data_dir(parser)
    options.add_model_id(parser, "sequence or base")
    parser.add_argument(
        "--model_type",
        choices=("lstm", "base"),
        default="lstm",
        help="lstm: the sequence model; base: the CNN alone (default: %(default)s)",
    )
    parser.add_argument(
        "--output", help="the CSV, a local path or gs://... (default: <data_dir>/output2.csv)"
    )
    parser.add_argument(
        "--calibrate",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="temper the probabilities as the experiment's validation split asks for; the mean of "
        "several base models is left as it is (default: %(default)s)",
    )
    return parser


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the stage; see `--help`."""
    args = options.parse(_make_parser(), argv)
    pipeline_options = runs.pipeline_options(args.beam_args, threads=False)
    layout = DataLayout(args.data_dir)
    name, experiments, bases = _find(args)
    tasks, folders = _tasks(layout, args.model_type, bases)
    quarantined = expected_image_ids(layout)[1]
    if not tasks:
        raise UserError(f"{layout.examples('test')}: holds no slices; nothing to predict")
    output = args.output or layout.prediction_csv
    # Only slices in quarantine need them, and a base model may be used before they are fitted.
    priors = bases[0].label_priors() if quarantined else {}
    temperature = temperature_of(experiments) if args.calibrate else 1.0
    parts = layout.predictions(args.model_type, name)
    builder = PredictionBuilder(
        args.data_dir,
        args.model_type,
        tuple(experiment.folder for experiment in experiments),
        folders,
        shards.fingerprint([file_fingerprint(e.model_file) for e in experiments]),
        temperature,
        parts,
    )
    publish = PublishPredictions(
        parts,
        output,
        functools.partial(expected_image_ids, layout),
        tuple(priors[subtype] for subtype in SUBTYPES if quarantined),
    )
    if temperature != 1:
        print(f"{STAGE}: probabilities are tempered with T = {temperature:.4f}", file=sys.stderr)
    _predict(tasks, builder, publish, pipeline_options, layout)
    if quarantined:
        print(
            f"{STAGE}: {len(quarantined)} quarantined slices have the label priors", file=sys.stderr
        )
    print(f"{STAGE}: wrote {output}", file=sys.stderr)


def _find(args: argparse.Namespace) -> "tuple[str, list[Experiment], list[Experiment]]":
    """A name for the predictions, the experiments that are asked, and their base experiments."""
    from trainer.experiment import LSTM
    from trainer.registry import base_experiments_of, find_base_models, find_experiment, group_name

    if args.model_type == "lstm":
        experiment = find_experiment(args.data_dir, LSTM, args.model_id)
        name, experiments = experiment.model_id, [experiment]
        bases = base_experiments_of(experiment)
    else:
        experiments = bases = find_base_models(args.data_dir, args.model_id)
        name = group_name(experiments)
        for experiment in experiments:
            check_images(DataLayout(args.data_dir), experiment, ["test"])
    for experiment in experiments:
        experiment.check_finished()
    return name, experiments, bases


def _tasks(
    layout: DataLayout, model_type: str, bases: "Sequence[Experiment]"
) -> tuple[list[ShardToScore], tuple[str, ...]]:
    """The test shards, and the folders they are in: of each base model's sequences, or examples."""
    from trainer.registry import group_name

    if model_type == "base":
        folders, command = [layout.examples("test")], HOW_TO_MAKE_EXAMPLES
    else:
        folders = [layout.sequences(base.model_id, "test") for base in bases]
        command = f"{HOW_TO_MAKE_SEQUENCES} --model_id {group_name(bases)}"
    return shards_to_score(folders, command), tuple(folders)


def temperature_of(experiments: "Sequence[Experiment]") -> float:
    """What training has found on the validation split; 1 for several base models.

    Each member of a group has a temperature of its own, but their mean is less sure of itself than
    they are, and to temper it with theirs made it worse.
    """
    return experiments[0].record().get("temperature", 1.0) if len(experiments) == 1 else 1.0


def _predict(
    tasks: list[ShardToScore],
    builder: PredictionBuilder,
    publish: PublishPredictions,
    pipeline_options: Any,
    layout: DataLayout,
) -> None:
    import apache_beam as beam

    from beam_pipelines.transforms import BuildShards, PublishShards, count_slices

    total = sum(task.num_slices for task in tasks)
    with runs.run_pipeline(pipeline_options, STAGE, total) as pipeline:
        (
            pipeline
            | "CreateShards" >> beam.Create(tasks)
            | "Predict" >> BuildShards(builder)
            | "PublishPredictions" >> PublishShards(publish)
        )
    report(STAGE, count_slices(pipeline.result, STAGE), layout)


if __name__ == "__main__":
    options.main_entry(run)
