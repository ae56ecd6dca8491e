"""Joins slices, metadata and labels into shards of example records, split by patient."""

from collections.abc import Iterable, Sequence
from typing import Any

from beam_pipelines import options, runs, shards, storage
from beam_pipelines.errors import require
from beam_pipelines.examples import STAGE, ExampleBuilder, PublishExamples
from beam_pipelines.layout import SPLITS, DataLayout
from beam_pipelines.metadata import open_described_archive, read_metadata_manifest
from beam_pipelines.progress import report
from beam_pipelines.series import ShardKey, batch_by_shard
from beam_pipelines.slice_references import row_blocks
from beam_pipelines.splits import shards_for
from configs import ExamplesConfig, add_flags, load_config, override

_DESCRIPTION = """\
Reads every slice once, turns it into an image whose channels are CT windows, and writes it with its
labels and its place in the series. All slices of a patient are in one split and one shard, series
by series, from feet to head.

Reads  train_metadata.csv, test_metadata.csv, reshaped_stage_2_train.csv and the archive.
Writes under --data_dir:
  train/, validation/, test/       TFRecord shards and a manifest.json each
  quarantine/build_examples.csv    slices that could not be used, with the reason
"""


def num_shards(num_slices: dict[str, int], config: ExamplesConfig) -> dict[str, int]:
    """How many shards each split has.

    Args:
        num_slices: slices of the train and the test part.
        config: share of validation patients, slices a shard.
    """
    held_out = num_slices["train"] * config.val_ratio
    sizes = {
        "train": num_slices["train"] - held_out,
        "validation": held_out,
        "test": num_slices["test"],
    }
    return {split: shards_for(sizes[split], config.slices_per_shard) for split in SPLITS}


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the stage; see `--help`."""
    parser = options.make_parser("beam_pipelines.build_examples", _DESCRIPTION)
    options.add_archive(parser)
    options.add_data_dir(parser)
    options.add_config(parser)
    add_flags(parser, ExamplesConfig)
    options.add_max_bad_fraction(parser)
    args = options.parse(parser, argv)
    pipeline_options = runs.pipeline_options(args.beam_args)
    config = override(load_config(args.config).examples, args)
    layout = DataLayout(args.data_dir)
    metadata = read_metadata_manifest(layout)
    open_described_archive(args.archive, metadata)
    labels_csv = layout.reshaped_labels_csv if storage.exists(layout.reshaped_labels_csv) else None
    require(
        labels_csv is not None or metadata["num_slices"]["train"] == 0,
        f"{layout.reshaped_labels_csv}: no such file; "
        "run python -m beam_pipelines.process_labels first",
    )
    shard_counts = num_shards(metadata["num_slices"], config)
    builder = ExampleBuilder(args.archive, args.data_dir, config, shard_counts, labels_csv)
    total = sum(metadata["num_slices"].values())
    publish = PublishExamples(args.data_dir, config, total, args.max_bad_fraction)
    for split in SPLITS:
        shards.retract_manifest(layout.examples(split))

    from beam_pipelines.transforms import count_slices

    with runs.run_pipeline(pipeline_options, STAGE, total) as pipeline:
        _build_graph(pipeline, layout, builder, publish)
    report(STAGE, count_slices(pipeline.result, STAGE), layout)


def _build_graph(
    pipeline: Any, layout: DataLayout, builder: ExampleBuilder, publish: PublishExamples
) -> None:
    """Blocks of rows -> batches a shard -> group by shard -> a worker reads and writes a shard."""
    import apache_beam as beam

    from beam_pipelines.transforms import BuildShards, PublishShards

    batches = (
        pipeline
        | "CreateBlocks" >> beam.Create(row_blocks(layout))
        | "BatchByShard" >> beam.FlatMap(batch_by_shard, builder.config, builder.num_shards)
    )
    receipts = (
        batches
        | "GroupByShard" >> beam.GroupByKey()
        | "ListBatches" >> beam.MapTuple(_list_batches)
        | "WriteExamples" >> BuildShards(builder)
    )
    receipts | "PublishExamples" >> PublishShards(publish)


def _list_batches(key: ShardKey, batches: Iterable[bytes]) -> tuple[ShardKey, list[bytes]]:
    return key, list(batches)


if __name__ == "__main__":
    options.main_entry(run)
