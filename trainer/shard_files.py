"""What a folder of shards holds, as its manifest says.

A folder is complete when its `manifest.json` is there; a pipeline writes it last.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from beam_pipelines import schema, shards, storage, tfrecord
from beam_pipelines.errors import require
from beam_pipelines.layout import DataLayout
from beam_pipelines.splits import in_fold
from configs import Config, ExamplesConfig
from configs.loader import build
from trainer.experiment import group_of

BUILD_EXAMPLES = "python -m beam_pipelines.build_examples"
BUILD_SEQUENCES = "python -m beam_pipelines.build_sequences"
EXTRACT_EMBEDDINGS = "python -m beam_pipelines.extract_embeddings"


@dataclass(frozen=True)
class ShardFolder:
    """One split's shards and what their manifest says of them.

    Attributes:
        folder: where the shards are.
        paths: the shard files, in order.
        fingerprint: of the inputs and settings that the shards were made from.
        num_slices: slices in the split.
        num_labelled: slices with labels.
        num_patients: distinct patients.
        num_sequences: sequences; 0 for a folder of examples.
        label_counts: positive slices of each subtype.
        settings: the settings that the shards were made with.
        receipts: what the manifest says of each shard.
        path_folds: the fold of the model whose embeddings each path holds; empty where they are
            those of a model without folds.
    """

    folder: str
    paths: tuple[str, ...]
    fingerprint: str
    num_slices: int
    num_labelled: int
    num_patients: int
    num_sequences: int
    label_counts: dict[str, int]
    settings: dict[str, Any]
    receipts: tuple[shards.Receipt, ...] = ()
    path_folds: tuple[int, ...] = ()

    def records(self) -> Iterator[bytes]:
        """Every serialized record once, in the order of the shards."""
        for path in self.paths:
            yield from tfrecord.read_file(path)


def read_folder(folder: str, made_by: str) -> ShardFolder:
    """Reads a folder's manifest.

    Args:
        folder: a folder of shards.
        made_by: the command that makes it, for the error.

    Raises:
        UserError: the folder has no manifest: it was not made, or not to the end.
    """
    manifest = shards.read_manifest(folder, made_by)
    settings = manifest["settings"]
    of_a_group = settings.get("model_folds", 1) > 1
    return ShardFolder(
        folder=folder,
        paths=tuple(storage.join(folder, shard["name"]) for shard in manifest["shards"]),
        fingerprint=manifest["fingerprint"],
        num_slices=manifest["num_slices"],
        num_labelled=manifest["num_labelled"],
        num_patients=manifest["num_patients"],
        num_sequences=manifest.get("num_sequences", 0),
        label_counts=manifest["label_counts"],
        settings=settings,
        receipts=tuple(manifest["shards"]),
        path_folds=(settings["model_fold"],) * len(manifest["shards"]) if of_a_group else (),
    )


def without_fold(folder: ShardFolder, folds: int, fold: int) -> ShardFolder:
    """The examples that a fold's model is trained on: all but the fold; see `splits.in_fold`.

    Args:
        folder: examples of the train split.
        folds: how many folds; 1 leaves nothing out.
        fold: the fold that is left out, from 0 on.

    Raises:
        UserError: there are fewer shards than folds, or nothing would be left.
    """
    if folds == 1:
        return folder
    require(
        len(folder.receipts) >= folds,
        f"folds: received {folds}, but {folder.folder} has {len(folder.receipts)} shards, which "
        f"are what folds are made of; give fewer, or run `{BUILD_EXAMPLES}` again with a smaller "
        "slices_per_shard",
    )
    kept = [r for index, r in enumerate(folder.receipts) if not in_fold(index, folds, fold)]
    totals = shards.totals_of(kept)
    part = dataclasses.replace(
        folder,
        paths=tuple(storage.join(folder.folder, receipt["name"]) for receipt in kept),
        num_slices=totals["num_slices"],
        num_labelled=totals["num_labelled"],
        num_patients=totals["num_patients"],
        label_counts=totals["label_counts"],
        receipts=tuple(kept),
    )
    require(
        part.num_labelled > 0,
        f"folds: received {folds}, but all labelled slices of {folder.folder} are in fold {fold}; "
        f"give another number, or run `{BUILD_EXAMPLES}` again with a smaller slices_per_shard",
    )
    return part


@dataclass(frozen=True)
class LabelledSplits:
    """The two splits that a model is trained on and judged on."""

    train: ShardFolder
    validation: ShardFolder

    @property
    def fingerprints(self) -> dict[str, str]:
        """What an experiment remembers of its data."""
        return {
            "train": self.train.fingerprint,
            "validation": self.validation.fingerprint,
        }


def read_examples(data_dir: str) -> LabelledSplits:
    """The example shards of train and validation.

    Raises:
        UserError: a split is missing, or holds too few patients to train on or to judge by.
    """
    layout = DataLayout(data_dir)
    return checked(
        read_folder(layout.examples("train"), BUILD_EXAMPLES),
        read_folder(layout.examples("validation"), BUILD_EXAMPLES),
    )


def checked(train: ShardFolder, validation: ShardFolder) -> LabelledSplits:
    """Both splits.

    Raises:
        UserError: one holds too few patients to train on or to judge by.
    """
    splits = LabelledSplits(train, validation)
    for split, name in ((splits.train, "train"), (splits.validation, "validation")):
        require(
            split.num_patients > 0 and split.num_labelled > 0,
            f"{split.folder}: too few patients to {name_of_use(name)}: received "
            f"{split.num_patients} patients with {split.num_labelled} labelled slices (train: "
            f"{splits.train.num_patients} patients, validation: "
            f"{splits.validation.num_patients}); use an archive with more labelled patients or "
            f"another val_ratio (it was {split.settings.get('val_ratio')}), then run "
            f"`{BUILD_EXAMPLES}` again",
        )
    return splits


def name_of_use(split: str) -> str:
    """What a split is for, as a verb."""
    return {"train": "train on", "validation": "validate on"}[split]


def choose_base_model_id(data_dir: str, base_model_id: str | None) -> str:
    """The base model or group whose sequences to use: the one that is named, or the only one there.

    Raises:
        UserError: lists the ids that there are.
    """
    root = DataLayout(data_dir).path("sequences")
    found = [path.rstrip("/").rsplit("/", 1)[-1] for path in storage.glob(f"{root}/*")]
    ids = [name for name in found if storage.is_folder(storage.join(root, name))]
    names = sorted({group_of(name) for name in ids})
    listed = ", ".join(names) or "none"
    if base_model_id is not None:
        require(
            base_model_id in (*names, *ids),
            f"{root}: no sequences of base model {base_model_id!r}; there are: {listed}; run "
            f"`{BUILD_SEQUENCES}` for it first",
        )
        return base_model_id
    require(bool(names), f"{root}: no sequences: run `{BUILD_SEQUENCES}` first")
    require(
        len(names) == 1,
        f"{root}: sequences of several base models: {listed}; say which with --base_model_id",
    )
    return names[0]


def label_priors(train: ShardFolder) -> dict[str, float]:
    """Share of positive slices of each subtype in the train split."""
    return {name: train.label_counts[name] / train.num_labelled for name in schema.SUBTYPES}


def with_settings_of(folder: ShardFolder, config: Config) -> Config:
    """A config that says how the shards were really made.

    What is already in the shards cannot be set any more: image size, windows, split, sequence
    length. An experiment's config tells the truth about them.
    """
    made = folder.settings
    if "image_size" in made:
        names = [field.name for field in dataclasses.fields(ExamplesConfig)]
        missing = [name for name in names if name not in made]
        require(
            not missing,
            f"{folder.folder}: its manifest does not say {', '.join(missing)}: it is of an earlier "
            f"version; run `{BUILD_EXAMPLES}` again",
        )
        settings = {name: made[name] for name in names}
        examples = build(ExamplesConfig, settings, f"{folder.folder}/{shards.MANIFEST}")
        config = dataclasses.replace(config, examples=examples)
    if "max_to_keep" in made:
        sequence = dataclasses.replace(config.sequence, max_to_keep=made["max_to_keep"])
        config = dataclasses.replace(config, sequence=sequence)
    return config
