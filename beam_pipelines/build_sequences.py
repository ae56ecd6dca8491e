"""Groups embeddings into padded sequences, one series in anatomical order each."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from beam_pipelines import options, runs, shards, storage
from beam_pipelines.embedding_references import (
    SequenceShard,
    group_series,
    read_references,
    reference_tasks,
)
from beam_pipelines.embeddings import HOW_TO_MAKE as HOW_TO_MAKE_EMBEDDINGS
from beam_pipelines.embeddings import fold_of
from beam_pipelines.errors import require
from beam_pipelines.layout import TRANSFORM, DataLayout
from beam_pipelines.npy_export import export_npy
from beam_pipelines.progress import report
from beam_pipelines.sequence_shards import STAGE, PublishSequences, SequenceBuilder
from beam_pipelines.slice_features import SLICE_FEATURES, labels_of, raw_features
from beam_pipelines.transform_graph import TransformFolder, concatenate, fit, to_record_batch
from configs import SequenceConfig, add_flags, load_config, override

if TYPE_CHECKING:
    from trainer.experiment import Experiment

_DESCRIPTION = """\
Groups the embeddings of each series, puts them in anatomical order and pads them to max_to_keep
slices under a mask; a longer series is covered by overlapping windows. Slice features (place, gaps,
spacing) are scaled by tensorflow-transform, fitted on the train split alone; the transform is saved
in the base experiment and reused for the other splits and for other data. The members of a group of
folds have one transform: it is fitted on the parts of the train split that they share, together.

Reads  embeddings/<model_id>/<split>/ of the data root, and the base experiment.
Writes sequences/<model_id>/<split>/ under --data_dir and transform/ in the experiment, for each
       member of a group; with --export_npy also train_embeddings.npy, train_labels.npy,
       train_mask.npy, test_embeddings.npy and test_img_ids.npy.
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

    from trainer.registry import find_base_models, members_of

    experiments = find_base_models(args.data_dir, args.model_id)
    require(
        len(experiments) == 1 or not args.export_npy,
        "--export_npy: the old scripts knew one model; give one member of the group as --model_id: "
        f"{', '.join(experiment.model_id for experiment in experiments)}",
    )
    embeddings = [_read_embeddings(layout, e, args.base_data) for e in experiments]
    _ensure_transform(layout, members_of(experiments[0]), pipeline_options)
    for experiment in experiments:
        for split in args.base_data:
            shards.retract_manifest(layout.sequences(experiment.model_id, split))
    for experiment, manifests in zip(experiments, embeddings, strict=True):
        _build(layout, experiment, manifests, config.max_to_keep, pipeline_options)
    if args.export_npy:
        for split in args.base_data:
            for path in export_npy(layout, experiments[0].model_id, split):
                print(f"{STAGE}: wrote {path}", file=sys.stderr)


def _read_embeddings(
    layout: DataLayout, experiment: "Experiment", splits: Iterable[str]
) -> dict[str, Any]:
    """The manifests of a model's embeddings, by split."""
    model_id = experiment.model_id
    return {
        split: shards.read_manifest(
            layout.embeddings(model_id, split),
            f"{HOW_TO_MAKE_EMBEDDINGS} --model_id {experiment.group or model_id} "
            f"--base_data {split}",
        )
        for split in splits
    }


def _build(
    layout: DataLayout,
    experiment: "Experiment",
    embeddings: dict[str, Any],
    max_to_keep: int,
    pipeline_options: Any,
) -> None:
    """References -> group by sequence shard -> one worker reads embeddings and writes a shard."""
    from beam_pipelines.transforms import BuildShards, PublishShards, count_slices

    model_id = experiment.model_id
    fingerprints = {split: manifest["fingerprint"] for split, manifest in embeddings.items()}
    transform = TransformFolder(experiment.path(TRANSFORM))
    trained_on = experiment.record()["data_fingerprints"]["train"]
    builder = SequenceBuilder(
        layout.data_dir, model_id, fingerprints, transform, trained_on, max_to_keep
    )
    model_folds, model_fold = experiment.fold()
    settings = {
        "model_id": model_id,
        # The model's own; `folds` and `fold` say which part of its split a folder holds.
        "model_folds": model_folds,
        "model_fold": model_fold,
        "max_to_keep": max_to_keep,
        "slice_features": list(SLICE_FEATURES),
        "num_slice_features": len(SLICE_FEATURES),
        "transform_fingerprint": trained_on,
    }
    publish = PublishSequences(layout.data_dir, model_id, settings, tuple(embeddings))
    total = sum(manifest["num_slices"] for manifest in embeddings.values())
    with runs.run_pipeline(pipeline_options, STAGE, total) as pipeline:
        grouped = _grouped_references(pipeline, layout.data_dir, [(model_id, embeddings)])
        receipts = grouped | "WriteSequences" >> BuildShards(builder)
        receipts | "PublishSequences" >> PublishShards(publish)
    report(STAGE, count_slices(pipeline.result, STAGE), layout)


def _grouped_references(
    pipeline: Any, data_dir: str, embeddings: Iterable[tuple[str, dict[str, Any]]]
) -> Any:
    """References to the embeddings of some models by their sequence shard.

    Args:
        pipeline: the pipeline.
        data_dir: data root.
        embeddings: of each model its id and the manifest of each split.
    """
    import apache_beam as beam

    tasks = [
        (task, data_dir, model_id)
        for model_id, manifests in embeddings
        for split, manifest in manifests.items()
        for task in reference_tasks(split, [shard["name"] for shard in manifest["shards"]])
    ]
    return (
        pipeline
        | "CreateShards" >> beam.Create(tasks)
        | "ReadReferences" >> beam.FlatMapTuple(read_references)
        | "GroupByShard" >> beam.GroupByKey()
    )


def _ensure_transform(
    layout: DataLayout, members: Sequence["Experiment"], pipeline_options: Any
) -> None:
    """Fits the transform of a base model, or the one of a whole group, unless it is there.

    Slice features do not depend on the model, so that one transform serves all members: it is
    fitted once and copied, and none of them needs the others' folders later.
    """
    folders = [TransformFolder(member.path(TRANSFORM)) for member in members]
    if not any(folder.complete for folder in folders):
        _fit_transform(layout, members, folders[0], pipeline_options)
    source = next(folder for folder in folders if folder.complete)
    for folder in folders:
        if not folder.complete:
            _copy_transform(source, folder)


def _copy_transform(source: TransformFolder, target: TransformFolder) -> None:
    target.clear()
    fs, root = storage.filesystem(source.graph)
    for path in fs.find(root):
        name = path.removeprefix(root).lstrip("/")
        with storage.open_atomic(storage.join(target.graph, name)) as file:
            file.write(fs.cat_file(path))
    storage.write_json(target.priors_file, storage.read_json(source.priors_file))


def _fit_transform(
    layout: DataLayout,
    members: Sequence["Experiment"],
    transform: TransformFolder,
    pipeline_options: Any,
) -> None:
    """Fits the transform on the train split that base models were trained on, and saves it.

    Each slice of the split takes part once: it is in one member's part.

    Raises:
        UserError: that split's embeddings are not in this data root.
    """
    import apache_beam as beam

    embeddings = []
    for member in members:
        manifests = _read_embeddings(layout, member, ["train"])
        settings = manifests["train"]["settings"]
        trained_on = member.record()["data_fingerprints"]["train"]
        require(
            settings["examples_fingerprint"] == trained_on and fold_of(settings) == member.fold(),
            f"{layout.embeddings(member.model_id, 'train')}: not the train split that experiment "
            f"{member.model_id} was trained on; run build_sequences in that data root first, which "
            "saves the transform in the experiment",
        )
        embeddings.append((member.model_id, manifests))
    transform.clear()
    with runs.run_pipeline(pipeline_options) as pipeline:
        batches = _grouped_references(
            pipeline, layout.data_dir, embeddings
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
