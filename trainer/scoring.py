"""What the models say of every labelled slice of a split.

An experiment has one base model, or several: the members of a group, each trained without a part
of the patients. Probabilities of a slice are averaged over the windows that see it, then over
members.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beam_pipelines import schema
from beam_pipelines.errors import require
from beam_pipelines.layout import DataLayout
from beam_pipelines.tensorflow_setup import load_tensorflow
from trainer import experiment, metrics, registry, shard_files
from trainer.experiment import Experiment
from trainer.shard_files import EXTRACT_EMBEDDINGS, ShardFolder


@dataclass(frozen=True)
class Predictions:
    """Labelled slices and their probabilities.

    Attributes:
        image_ids: of each slice, texts of shape (num_slices,).
        patient_ids: of the same shape.
        study_instance_uids: of the same shape.
        labels: 0 or 1, of shape (num_slices, 6).
        base: the base model's probabilities, float64 of shape (num_slices, 6).
        lstm: the sequence model's, of the same shape; None where a base model is judged alone.
    """

    image_ids: np.ndarray
    patient_ids: np.ndarray
    study_instance_uids: np.ndarray
    labels: np.ndarray
    base: np.ndarray
    lstm: np.ndarray | None


def read_members(
    data_dir: str, found: Experiment, split: str, members: Sequence[str] | None = None
) -> list[ShardFolder]:
    """Each member's shards of a split: sequences, or embeddings where a base model is judged.

    Args:
        data_dir: the data root.
        found: the experiment.
        split: train or validation.
        members: ids of the base models; those of the experiment when None.

    Raises:
        UserError: they are missing, or hold no labelled slice.
    """
    layout, folders = DataLayout(data_dir), []
    members = members or registry.base_model_ids(found)
    for member in members:
        if found.kind == experiment.BASE:
            path, made_by = layout.embeddings(member, split), EXTRACT_EMBEDDINGS
        else:
            path, made_by = layout.sequences(member, split), shard_files.BUILD_SEQUENCES
        folder = shard_files.read_folder(path, f"{made_by} --model_id {member}")
        require(
            folder.num_labelled > 0,
            f"{path}: {folder.num_slices} slices, none of them labelled; give a --data_dir or "
            "--split with labels",
        )
        folders.append(folder)
    return folders


def predict_split(found: Experiment, folders: Sequence[ShardFolder]) -> Predictions:
    """Scores a split with all members.

    Args:
        found: the experiment, `lstm` or `base`.
        folders: each member's shards; see `read_members`.

    Raises:
        UserError: the model is not trained to the end, sequences are longer or shorter than those
            it was trained on, members' slices are not the same, or a probability is no number.
    """
    if found.kind == experiment.BASE:
        members = [_base_predictions(folder) for folder in folders]
    else:
        members = _sequence_predictions(found, folders)
    predictions = mean_of_members(members, [folder.folder for folder in folders])
    for values in (predictions.base, predictions.lstm):
        require(
            values is None or bool(np.isfinite(values).all()),
            f"{found.folder}: probabilities that are no numbers: its training or that of its base "
            "model has diverged; train again with a smaller lr",
        )
    return predictions


def mean_of_members(members: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    """Averages members' probabilities by image id; slices are in the order of the first member.

    Args:
        members: at least one.
        names: of the members, for the error.

    Raises:
        UserError: a member has other slices or labels than the first.
    """
    first, ordered = members[0], [members[0]]
    by_id = np.argsort(first.image_ids)
    for member, name in zip(members[1:], names[1:], strict=True):
        rows = np.empty(len(member.image_ids), np.intp)
        same = len(rows) == len(by_id)
        if same:
            rows[by_id] = np.argsort(member.image_ids)
            same = np.array_equal(member.image_ids[rows], first.image_ids)
        require(
            same and np.array_equal(member.labels[rows], first.labels),
            f"{name}: not the labelled slices of {names[0]}; make both again from the same "
            f"examples: run {EXTRACT_EMBEDDINGS} and {shard_files.BUILD_SEQUENCES} for each model",
        )
        lstm = None if member.lstm is None else member.lstm[rows]
        ordered.append(dataclasses.replace(member, base=member.base[rows], lstm=lstm))
    sequence = [member.lstm for member in ordered if member.lstm is not None]
    return dataclasses.replace(
        first,
        base=np.mean([member.base for member in ordered], axis=0),
        lstm=np.mean(sequence, axis=0) if sequence else None,
    )


def _sequence_predictions(found: Experiment, folders: Sequence[ShardFolder]) -> list[Predictions]:
    load_tensorflow()
    from trainer import inference, input_pipeline, judging

    scorer = inference.load_sequence(found)
    members = []
    for folder in folders:
        made = folder.settings["max_to_keep"]
        require(
            made == scorer.max_to_keep,
            f"{folder.folder}: sequences of {made} slices, but {found.folder} was trained on "
            f"{scorer.max_to_keep}; run `{shard_files.BUILD_SEQUENCES} --max_to_keep "
            f"{scorer.max_to_keep}` again",
        )
        slices = judging.SequenceSlices(folder)
        batches = input_pipeline.evaluation_sequences(folder, scorer.batch_size)
        logits = np.concatenate([scorer(batch) for batch in batches.as_numpy_iterator()])
        labels, lstm = slices.by_image(metrics.sigmoid(logits))
        _, base = slices.by_image(metrics.sigmoid(slices.base_logits))
        members.append(
            Predictions(
                slices.image_ids,
                slices.patient_ids,
                slices.study_instance_uids,
                labels,
                base,
                lstm,
            )
        )
    return members


def _base_predictions(folder: ShardFolder) -> Predictions:
    """What embedding shards say; no model and no TensorFlow is needed."""
    items, logits = [], []
    for record in folder.records():
        item, _, logit = schema.decode_embedding(record)
        if item.label is not None:
            items.append(item)
            logits.append(np.array(logit))
    return Predictions(
        np.array([item.image_id for item in items]),
        np.array([item.patient_id for item in items]),
        np.array([item.study_instance_uid for item in items]),
        np.array([item.label for item in items]),
        metrics.sigmoid(np.stack(logits)),
        None,
    )
