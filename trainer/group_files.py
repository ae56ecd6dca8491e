"""The sequences of a group of base models, which one sequence model is trained on.

Each member has made those of the train studies that it was not trained on, and of every validation
study. Embeddings of train slices are then of the same kind as those of new patients: a model that
has seen a slice in training knows its label too well, and a sequence model would trust it too much.
"""

import dataclasses
from collections.abc import Sequence

from beam_pipelines import schema, shards
from beam_pipelines.errors import require
from beam_pipelines.layout import DataLayout
from trainer.experiment import Experiment, group_of
from trainer.shard_files import (
    BUILD_EXAMPLES,
    BUILD_SEQUENCES,
    EXTRACT_EMBEDDINGS,
    LabelledSplits,
    ShardFolder,
    checked,
    read_folder,
)

# What must be the same in the sequences of all members of a group.
_ALIKE = ("max_to_keep", "embedding_dim", "num_slice_features", "examples_fingerprint")


def read_group_sequences(data_dir: str, base_model_ids: Sequence[str]) -> LabelledSplits:
    """The sequence shards of train and validation, made by a base model or a group of folds.

    Of a group, train is what all members hold together, each train study once. Validation has
    every study once for each member; its counts of slices and patients are those of one.

    Args:
        data_dir: the data root.
        base_model_ids: of the only base model, or of all members in the order of their folds.

    Raises:
        UserError: a split is missing, holds too few patients to train on or to judge by, or holds
            slices that its member was trained on.
    """
    train, validation = (
        [_read_member(data_dir, base_model_ids, fold, split) for fold in range(len(base_model_ids))]
        for split in ("train", "validation")
    )
    one = validation[0]
    every = dataclasses.replace(
        join_folders(validation),
        num_slices=one.num_slices,
        num_labelled=one.num_labelled,
        num_patients=one.num_patients,
        label_counts=one.label_counts,
    )
    return checked(join_folders(train), every)


def check_splits(splits: LabelledSplits, bases: Sequence[Experiment]) -> None:
    """Checks that patients were not divided anew since base models were trained.

    Raises:
        UserError: sequences are made of other examples than those that a model was trained on and
            chosen by, so that its training patients could be among those of validation.
    """
    for folder, split in ((splits.train, "train"), (splits.validation, "validation")):
        for base in bases:
            trained_on = base.record()["data_fingerprints"][split]
            require(
                folder.settings["examples_fingerprint"] == trained_on,
                f"{folder.folder}: made of other examples than base model {base.model_id} was "
                "trained with, which may have divided patients otherwise; train a base model on "
                f"these examples, or run `{BUILD_EXAMPLES}` with its settings again, then "
                f"`{EXTRACT_EMBEDDINGS}` and `{BUILD_SEQUENCES}`",
            )


def _read_member(
    data_dir: str, base_model_ids: Sequence[str], fold: int, split: str
) -> ShardFolder:
    model_id, folds = base_model_ids[fold], len(base_model_ids)
    build = f"{BUILD_SEQUENCES} --model_id {model_id if folds == 1 else group_of(model_id)}"
    folder = read_folder(DataLayout(data_dir).sequences(model_id, split), build)
    if folds == 1:
        # A member that is named alone is a model like any other.
        return dataclasses.replace(folder, path_folds=())
    part = folder.settings.get("folds", 1), folder.settings.get("fold", 0)
    require(
        split != "train" or part == (folds, fold),
        f"{folder.folder}: not fold {fold} of {folds} of the train split that the group was "
        "trained on: its embeddings could be those of slices seen in training; train in the data "
        f"root of the group, or run `{EXTRACT_EMBEDDINGS}` and `{build}` there again",
    )
    return folder


def join_folders(folders: Sequence[ShardFolder]) -> ShardFolder:
    """The shards of several folders of sequences as one; counts are added up.

    Raises:
        UserError: they were not made alike.
    """
    first = folders[0]
    if len(folders) == 1:
        return first
    for other in folders[1:]:
        for key in _ALIKE:
            one, two = first.settings.get(key), other.settings.get(key)
            require(
                one == two,
                f"{other.folder}: {key} is {two}, but {one} in {first.folder}; run "
                f"`{EXTRACT_EMBEDDINGS}` and `{BUILD_SEQUENCES}` for the whole group",
            )
    return dataclasses.replace(
        first,
        folder=", ".join(folder.folder for folder in folders),
        paths=tuple(path for folder in folders for path in folder.paths),
        fingerprint=shards.fingerprint([folder.fingerprint for folder in folders]),
        num_slices=sum(folder.num_slices for folder in folders),
        num_labelled=sum(folder.num_labelled for folder in folders),
        num_patients=sum(folder.num_patients for folder in folders),
        num_sequences=sum(folder.num_sequences for folder in folders),
        label_counts={
            name: sum(folder.label_counts[name] for folder in folders) for name in schema.SUBTYPES
        },
        receipts=tuple(receipt for folder in folders for receipt in folder.receipts),
        path_folds=tuple(fold for folder in folders for fold in folder.path_folds),
    )
