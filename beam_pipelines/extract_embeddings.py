"""Runs trained base models over example shards and writes an embedding for every slice."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from beam_pipelines import options, runs, shards
from beam_pipelines.embeddings import (
    STAGE,
    EmbeddingBuilder,
    PublishEmbeddings,
    check_images,
    example_shards,
    file_fingerprint,
    fold_in,
    unseen_shards,
)
from beam_pipelines.layout import DataLayout
from beam_pipelines.progress import report

if TYPE_CHECKING:
    from trainer.experiment import Experiment

_DESCRIPTION = """\
Runs a base experiment's model over slices, shard by shard, and writes what its last layer makes of
each (1536 numbers for inception_resnet, 2048 for resnet_50) and its six logits. Of a group of folds
every member does so, one after the other; of the train split that they share, each takes the part
that it was not trained on, so that every train slice has one embedding, of a model that has never
seen its patient.

Reads  train/, validation/, test/ of the data root and the experiment.
Writes embeddings/<model_id>/<split>/ under --data_dir, for each member of a group.
"""


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the stage; see `--help`."""
    parser = options.make_parser("beam_pipelines.extract_embeddings", _DESCRIPTION)
    options.add_data_dir(parser)
    options.add_model_id(parser, "base")
    options.add_base_data(parser)
    args = options.parse(parser, argv)
    pipeline_options = runs.pipeline_options(args.beam_args, threads=False)
    layout = DataLayout(args.data_dir)
    # Before a model is looked for: examples are made first.
    example_shards(layout, args.base_data)

    from trainer.registry import find_base_models

    experiments = find_base_models(args.data_dir, args.model_id)
    for experiment in experiments:
        experiment.check_finished()
        check_images(layout, experiment, args.base_data)
    for experiment in experiments:
        for split in args.base_data:
            shards.retract_manifest(layout.embeddings(experiment.model_id, split))
    for experiment in experiments:
        _extract(layout, experiment, args.base_data, pipeline_options)


def _extract(
    layout: DataLayout, experiment: "Experiment", splits: list[str], pipeline_options: Any
) -> None:
    """One model's embeddings."""
    import apache_beam as beam

    from beam_pipelines.transforms import BuildShards, PublishShards, count_slices

    folds, fold = fold_in(layout, splits, experiment)
    fingerprint = file_fingerprint(experiment.model_file)
    model_id, tta = experiment.model_id, experiment.config().base.tta
    builder = EmbeddingBuilder(layout.data_dir, experiment.folder, model_id, fingerprint, tta)
    publish = PublishEmbeddings(
        layout.data_dir, model_id, fingerprint, tta, tuple(splits), folds, fold
    )
    tasks = unseen_shards(layout, splits, folds, fold)
    total = sum(task.receipt["num_slices"] for task in tasks)
    with runs.run_pipeline(pipeline_options, STAGE, total) as pipeline:
        (
            pipeline
            | "CreateShards" >> beam.Create(tasks)
            | "ExtractEmbeddings" >> BuildShards(builder)
            | "PublishEmbeddings" >> PublishShards(publish)
        )
    report(STAGE, count_slices(pipeline.result, STAGE), layout)


if __name__ == "__main__":
    options.main_entry(run)
