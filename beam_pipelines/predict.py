"""Scores every slice of the test split and writes the submission CSV."""

import sys
from collections.abc import Sequence
from typing import Any

from beam_pipelines import options, runs, shards
from beam_pipelines.embeddings import ExampleShard, example_shards, file_fingerprint
from beam_pipelines.errors import UserError
from beam_pipelines.layout import DataLayout
from beam_pipelines.predictions import (
    STAGE,
    PredictionBuilder,
    PublishPredictions,
    expected_image_ids,
)
from beam_pipelines.progress import report
from beam_pipelines.schema import SUBTYPES
from beam_pipelines.sequence_shards import HOW_TO_MAKE as HOW_TO_MAKE_SEQUENCES

_DESCRIPTION = """\
Scores every slice of the test split and writes ID,Label: six rows a slice, one a subtype, as
Kaggle's submission has them. The file appears only when every slice that the metadata lists is in
it once. A slice in quarantine has no pixels to score; its rows hold the train split's label priors.

Reads  with --model_type lstm: sequences/<base model id>/test/; with base: test/;
       the metadata, the quarantine and the experiment.
Writes --output; predictions/ under --data_dir holds the parts that it is merged from.

Research use only: not a medical device.
"""


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the stage; see `--help`."""
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
    args = options.parse(parser, argv)
    pipeline_options = runs.pipeline_options(args.beam_args, threads=False)
    layout = DataLayout(args.data_dir)

    from trainer.experiment import BASE, LSTM, find_experiment

    kind = LSTM if args.model_type == "lstm" else BASE
    experiment = find_experiment(args.data_dir, kind, args.model_id)
    base = experiment.base_experiment() if kind == LSTM else experiment
    tasks = _tasks(layout, base.model_id if kind == LSTM else None)
    scored, quarantined = expected_image_ids(layout)
    if not tasks:
        raise UserError(f"{layout.examples('test')}: holds no slices; nothing to predict")
    output = args.output or layout.prediction_csv
    # Only slices in quarantine need them, and a base model may be used before they are fitted.
    priors = base.label_priors() if quarantined else {}
    parts = layout.predictions(args.model_type, experiment.model_id)
    builder = PredictionBuilder(
        args.data_dir,
        args.model_type,
        experiment.folder,
        base.model_id,
        file_fingerprint(experiment.model_file),
        parts,
    )
    publish = PublishPredictions(
        parts,
        output,
        tuple(scored),
        tuple(quarantined),
        tuple(priors[name] for name in SUBTYPES if quarantined),
    )
    _predict(tasks, builder, publish, pipeline_options, layout)
    if quarantined:
        print(
            f"{STAGE}: {len(quarantined)} quarantined slices have the label priors", file=sys.stderr
        )
    print(f"{STAGE}: wrote {output}", file=sys.stderr)


def _tasks(layout: DataLayout, base_model_id: str | None) -> list[ExampleShard]:
    """The test shards: of sequences where a base model is given, else of examples."""
    if base_model_id is None:
        return example_shards(layout, ["test"])
    folder = layout.sequences(base_model_id, "test")
    manifest = shards.read_manifest(folder, f"{HOW_TO_MAKE_SEQUENCES} --model_id {base_model_id}")
    return [ExampleShard("test", receipt) for receipt in manifest["shards"]]


def _predict(
    tasks: list[ExampleShard],
    builder: PredictionBuilder,
    publish: PublishPredictions,
    pipeline_options: Any,
    layout: DataLayout,
) -> None:
    import apache_beam as beam

    from beam_pipelines.transforms import BuildShards, PublishShards, count_slices

    total = sum(task.receipt["num_slices"] for task in tasks)
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
