"""Runs a trained base model over example shards and writes an embedding for every slice."""

from collections.abc import Sequence

from beam_pipelines import options, runs, shards
from beam_pipelines.embeddings import (
    STAGE,
    EmbeddingBuilder,
    PublishEmbeddings,
    example_shards,
    file_fingerprint,
)
from beam_pipelines.layout import DataLayout
from beam_pipelines.progress import report

_DESCRIPTION = """\
Runs a base experiment's model over slices, shard by shard, and writes what its last layer makes of
each (1536 numbers for inception_resnet, 2048 for resnet_50) and its six logits.

Reads  train/, validation/, test/ of the data root and the experiment.
Writes embeddings/<model_id>/<split>/ under --data_dir.
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
    tasks = example_shards(layout, args.base_data)

    from trainer.experiment import BASE, find_experiment

    experiment = find_experiment(args.data_dir, BASE, args.model_id)
    fingerprint = file_fingerprint(experiment.model_file)
    builder = EmbeddingBuilder(args.data_dir, experiment.folder, experiment.model_id, fingerprint)
    publish = PublishEmbeddings(
        args.data_dir, experiment.model_id, fingerprint, tuple(args.base_data)
    )
    for split in args.base_data:
        shards.retract_manifest(layout.embeddings(experiment.model_id, split))

    import apache_beam as beam

    from beam_pipelines.transforms import BuildShards, PublishShards, count_slices

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
