"""Groups embeddings into padded sequences, one series in anatomical order each."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from beam_pipelines import options, runs, shards
from beam_pipelines.embedding_references import (
    SequenceShard,
    group_series,
    read_references,
    reference_tasks,
)
from beam_pipelines.embeddings import HOW_TO_MAKE as HOW_TO_MAKE_EMBEDDINGS
from beam_pipelines.errors import require
from beam_pipelines.layout import TRANSFORM, DataLayout
from beam_pipelines.npy_export import export_npy
from beam_pipelines.progress import report
from beam_pipelines.sequence_shards import STAGE, PublishSequences, SequenceBuilder
from beam_pipelines.slice_features import SLICE_FEATURES, labels_of, raw_features
from beam_pipelines.transform_graph import TransformFolder, concatenate, fit, to_record_batch
from configs import SequenceConfig, add_flags, load_config, override

_DESCRIPTION = """\
Groups the embeddings of each series, puts them in anatomical order and pads them to max_to_keep
slices under a mask; a longer series is covered by overlapping windows. Slice features (place, gaps,
spacing) are scaled by tensorflow-transform, fitted on the train split alone; the transform is saved
in the base experiment and reused for the other splits and for other data.

Reads  embeddings/<model_id>/<split>/ of the data root, and the base experiment.
Writes sequences/<model_id>/<split>/ under --data_dir and transform/ in the experiment;
       with --export_npy also train_embeddings.npy, train_labels.npy, train_mask.npy,
       test_embeddings.npy and test_img_ids.npy.
"""


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the stage; see `--help`."""
    parser = options.make_parser("beam_pipelines.build_sequences", _DESCRIPTION)
    options.add_data_dir(parser)
    options.add_model_id(parser, "base")
    options.add_base_data(parser)
    options.add_config(parser)
    add_flags(parser, SequenceConfig, ("max_to_keep",))
    parser.add_argument(
        "--export_npy", action="store_true", help="also write the arrays of the old scripts"
    )
    args = options.parse(parser, argv)
    pipeline_options = runs.pipeline_options(args.beam_args, threads=False)
    config = override(load_config(args.config).sequence, args)
    layout = DataLayout(args.data_dir)

    from trainer.experiment import BASE, find_experiment

    experiment = find_experiment(args.data_dir, BASE, args.model_id)
    model_id = experiment.model_id
    embeddings = {
        split: shards.read_manifest(layout.embeddings(model_id, split), HOW_TO_MAKE_EMBEDDINGS)
        for split in args.base_data
    }
    transform = TransformFolder(experiment.path(TRANSFORM))
    trained_on = experiment.record()["data_fingerprints"]["train"]
    if not transform.complete:
        _fit_transform(args.data_dir, model_id, trained_on, transform, pipeline_options)
    builder = SequenceBuilder(
        args.data_dir,
        model_id,
        {split: manifest["fingerprint"] for split, manifest in embeddings.items()},
        transform,
        trained_on,
        config.max_to_keep,
    )
    settings = {
        "model_id": model_id,
        "max_to_keep": config.max_to_keep,
        "slice_features": list(SLICE_FEATURES),
        "num_slice_features": len(SLICE_FEATURES),
        "transform_fingerprint": trained_on,
    }
    publish = PublishSequences(args.data_dir, model_id, settings, tuple(args.base_data))
    for split in args.base_data:
        shards.retract_manifest(layout.sequences(model_id, split))
    _build(embeddings, builder, publish, pipeline_options, layout)
    if args.export_npy:
        for split in args.base_data:
            for path in export_npy(layout, model_id, split):
                print(f"{STAGE}: wrote {path}", file=sys.stderr)


def _build(
    embeddings: dict[str, Any],
    builder: SequenceBuilder,
    publish: PublishSequences,
    pipeline_options: Any,
    layout: DataLayout,
) -> None:
    """References -> group by sequence shard -> one worker reads embeddings and writes a shard."""
    from beam_pipelines.transforms import BuildShards, PublishShards, count_slices

    total = sum(manifest["num_slices"] for manifest in embeddings.values())
    with runs.run_pipeline(pipeline_options, STAGE, total) as pipeline:
        grouped = _grouped_references(pipeline, builder.data_dir, builder.model_id, embeddings)
        receipts = grouped | "WriteSequences" >> BuildShards(builder)
        receipts | "PublishSequences" >> PublishShards(publish)
    report(STAGE, count_slices(pipeline.result, STAGE), layout)


def _grouped_references(
    pipeline: Any, data_dir: str, model_id: str, embeddings: dict[str, Any]
) -> Any:
    import apache_beam as beam

    tasks = [
        task
        for split, manifest in embeddings.items()
        for task in reference_tasks(split, [shard["name"] for shard in manifest["shards"]])
    ]
    return (
        pipeline
        | "CreateShards" >> beam.Create(tasks)
        | "ReadReferences" >> beam.FlatMap(read_references, data_dir, model_id)
        | "GroupByShard" >> beam.GroupByKey()
    )


def _fit_transform(
    data_dir: str,
    model_id: str,
    trained_on: str,
    transform: TransformFolder,
    pipeline_options: Any,
) -> None:
    """Fits the transform on the train split that the base model was trained on, and saves it.

    Raises:
        UserError: that split's embeddings are not in this data root.
    """
    import apache_beam as beam

    folder = DataLayout(data_dir).embeddings(model_id, "train")
    manifest = shards.read_manifest(
        folder, f"{HOW_TO_MAKE_EMBEDDINGS} --model_id {model_id} --base_data train"
    )
    require(
        manifest["settings"]["examples_fingerprint"] == trained_on,
        f"{folder}: not the train split that experiment {model_id} was trained on; run "
        "build_sequences in that data root first, which saves the transform in the experiment",
    )
    transform.clear()
    with runs.run_pipeline(pipeline_options) as pipeline:
        batches = _grouped_references(
            pipeline, data_dir, model_id, {"train": manifest}
        ) | "ToRecordBatch" >> beam.MapTuple(_to_record_batch)
        fit(batches, transform.graph)
    priors = transform.finish()
    shown = ", ".join(f"{name} {share:.2%}" for name, share in priors.items())
    print(f"{STAGE}: transform fitted on the train split; priors {shown}", file=sys.stderr)


def _to_record_batch(_: SequenceShard, batches: Iterable[bytes]) -> Any:
    series = [[r.item for r in group] for group in group_series(batches)]
    features = concatenate(raw_features(items) for items in series)
    labels, labelled = labels_of([item for items in series for item in items])
    return to_record_batch(features, labels, labelled)


if __name__ == "__main__":
    options.main_entry(run)
