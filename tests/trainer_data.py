"""Tiny shards for the trainer's tests, made with the schema's own encoders.

A slice that is positive for a subtype has a bright square in that subtype's place, so a small
model can learn it in a few steps; an embedding holds its slice's labels under noise.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from beam_pipelines import schema, storage, tfrecord
from beam_pipelines.layout import LABEL_PRIORS, TRANSFORM, DataLayout, shard_name
from configs import BaseConfig, Config, ExamplesConfig, SequenceConfig
from configs.loader import to_mapping

PATIENTS = {"train": 8, "validation": 4, "test": 2}
BASE_MODEL_ID = "base1"
SEQUENCE_MODEL_ID = "lstm1"
GROUP_ID = "group1"


@dataclass(frozen=True)
class Study:
    """One series of a patient: its slices, images and labels."""

    slices: tuple[schema.Slice, ...]
    images: np.ndarray
    labels: np.ndarray


def make_study(
    rng: np.random.Generator, patient: str, num_slices: int, size: int, labelled: bool = True
) -> Study:
    """A series with random labels: uint8 (num_slices, size, size, 3) and 0 or 1 (num_slices, 6)."""
    labels = (rng.random((num_slices, schema.NUM_LABELS)) < 0.25).astype(np.int64)
    labels[:, -1] = labels[:, :-1].max(axis=1)
    images = rng.integers(0, 60, (num_slices, size, size, 3), dtype=np.uint8)
    side = size // 4
    for index, label in enumerate(labels):
        for subtype in np.flatnonzero(label[:-1]):
            row, column = divmod(int(subtype), 3)
            top, left = (row + 1) * side, column * side + side // 2
            images[index, top : top + side, left : left + side] = 250
    slices = tuple(
        schema.Slice(
            image_id=f"{patient}-{index}",
            patient_id=patient,
            study_instance_uid=f"study-{patient}",
            series_instance_uid=f"series-{patient}",
            index=index,
            num_slices=num_slices,
            position_mm=5.0 * index,
            gap_below_mm=5.0 if index else 0.0,
            gap_above_mm=5.0 if index < num_slices - 1 else 0.0,
            pixel_spacing_mm=0.5,
            label=tuple(int(v) for v in labels[index]) if labelled else None,
        )
        for index in range(num_slices)
    )
    return Study(slices, images, labels)


def make_studies(
    split: str, size: int = 32, num_slices: int = 6, num_patients: int | None = None
) -> list[Study]:
    """The studies of a split; the same on every call."""
    rng = np.random.default_rng(list(split.encode()))
    count = PATIENTS[split] if num_patients is None else num_patients
    labelled = split != "test"
    return [
        make_study(rng, f"{split}{number}", num_slices - number % 2, size, labelled)
        for number in range(count)
    ]


def write_shards(
    folder: str,
    shards: list[list[bytes]],
    manifest: Mapping[str, Any],
    counts: list[dict[str, Any]],
) -> None:
    """Writes shards and, last, their manifest; `counts` are the entries of each shard's receipt."""
    names = [shard_name(index, len(shards)) for index in range(len(shards))]
    for name, records in zip(names, shards, strict=True):
        with storage.open_atomic(storage.join(folder, name)) as file:
            for record in records:
                tfrecord.write_record(file, record)
    listed = [{"name": name, **count} for name, count in zip(names, counts, strict=True)]
    storage.write_json(storage.join(folder, "manifest.json"), {**manifest, "shards": listed})


def _counts(studies: list[Study]) -> dict[str, Any]:
    labelled = [study for study in studies if study.slices[0].label is not None]
    positives = np.concatenate([np.zeros((1, 6), int), *(study.labels for study in labelled)]).sum(
        0
    )
    return {
        "num_slices": sum(len(study.slices) for study in studies),
        "num_labelled": sum(len(study.slices) for study in labelled),
        "num_patients": len({study.slices[0].patient_id for study in studies}),
        "num_series": len(studies),
        "label_counts": {n: int(v) for n, v in zip(schema.SUBTYPES, positives, strict=True)},
    }


def _dealt(items: list[Any], num_shards: int) -> Iterator[list[Any]]:
    for index in range(num_shards):
        yield items[index::num_shards]


def write_examples(
    data_dir: Path, split: str, studies: list[Study], num_shards: int = 2, **settings: Any
) -> None:
    """Writes a split's example shards."""
    size = studies[0].images.shape[1] if studies else 32
    shards, counts = [], []
    for part in _dealt(studies, num_shards):
        counts.append(
            {**_counts(part), "label_counts": list(_counts(part)["label_counts"].values())}
        )
        records = []
        for study in part:
            for item, image in zip(study.slices, study.images, strict=True):
                # OpenCV's channels are blue, green, red.
                encoded = cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()
                records.append(schema.encode_example(item, encoded, "png", size, size))
        shards.append(records)
    manifest = {
        "stage": "build_examples",
        "fingerprint": f"examples-{split}",
        "settings": {
            **to_mapping(ExamplesConfig(size, channels="windows", crop="none")),
            **settings,
        },
        **_counts(studies),
    }
    write_shards(DataLayout(str(data_dir)).examples(split), shards, manifest, counts)


def make_sequences(
    studies: list[Study], max_to_keep: int = 8, embedding_dim: int = 12, seed: int = 0
) -> list[schema.Sequence]:
    """Padded windows of studies, each half a window after the one before."""
    rng = np.random.default_rng(seed)
    sequences = []
    for study in studies:
        count = len(study.slices)
        noise = rng.normal(size=(count, embedding_dim))
        noise[:, : schema.NUM_LABELS] += 3.0 * study.labels
        logits = rng.normal(size=(count, schema.NUM_LABELS)) + 2.0 * study.labels - 2.0
        last = max(count - max_to_keep, 0)
        for start in sorted({*range(0, last, max_to_keep // 2), last}):
            rows = slice(start, min(start + max_to_keep, count))
            sequences.append(_window(study, rows, max_to_keep, noise, logits))
    return sequences


def _window(
    study: Study, rows: slice, max_to_keep: int, embeddings: np.ndarray, logits: np.ndarray
) -> schema.Sequence:
    missing = max_to_keep - (rows.stop - rows.start)

    def padded(values: np.ndarray) -> np.ndarray:
        return np.pad(values[rows], [(0, missing), (0, 0)]).astype(np.float32)

    items = study.slices[rows]
    features = np.array([[s.position_mm, s.gap_below_mm, s.gap_above_mm] for s in study.slices])
    return schema.Sequence(
        patient_id=items[0].patient_id,
        study_instance_uid=items[0].study_instance_uid,
        series_instance_uid=items[0].series_instance_uid,
        start=rows.start,
        num_slices=len(study.slices),
        image_ids=tuple(s.image_id for s in items) + ("",) * missing,
        embeddings=padded(embeddings),
        logits=padded(logits),
        slice_features=padded(features / 50),
        labels=None if items[0].label is None else padded(study.labels),
        mask=np.pad(np.ones(len(items), np.uint8), (0, missing)),
    )


def write_sequences(
    data_dir: Path,
    split: str,
    studies: list[Study],
    base_model_id: str = BASE_MODEL_ID,
    max_to_keep: int = 8,
    num_shards: int = 2,
    **settings: Any,
) -> None:
    """Writes a split's sequence shards; the embeddings of folds are the same, each turned round."""
    layout = DataLayout(str(data_dir))
    sequences = [
        dataclasses.replace(s, embeddings=np.roll(s.embeddings, settings.get("model_fold", 0), 1))
        for s in make_sequences(studies, max_to_keep)
    ]
    counts = _counts(studies)
    manifest = {
        "stage": "build_sequences",
        "fingerprint": f"sequences-{split}{settings.get('model_fold', '')}",
        "num_sequences": len(sequences),
        "settings": {
            "max_to_keep": max_to_keep,
            "embedding_dim": 12,
            "num_slice_features": 3,
            "examples_fingerprint": f"examples-{split}",
            **settings,
        },
        **counts,
    }
    records = [schema.encode_sequence(sequence) for sequence in sequences]
    folder = layout.sequences(base_model_id, split)
    dealt = list(_dealt(records, num_shards))
    write_shards(folder, dealt, manifest, [{"num_sequences": len(part)} for part in dealt])


def write_group_sequences(data_dir: Path, folds: int) -> list[str]:
    """Sequences of a group's members, each of its share of the train studies; returns their ids."""
    ids = [f"{GROUP_ID}-fold{fold}" for fold in range(folds)]
    for fold, model_id in enumerate(ids):
        for split in PATIENTS:
            studies = make_studies(split)
            settings = {"model_folds": folds, "model_fold": fold}
            if split == "train":
                studies = studies[fold::folds]
                settings |= {"folds": folds, "fold": fold}
            write_sequences(data_dir, split, studies, model_id, **settings)
    return ids


def make_group(data_dir: Path, folds: int) -> list[Any]:
    """The members of a group, finished but for their models."""
    from trainer import experiment, registry

    config = tiny_config(folds=folds)
    members = []
    for fold in range(folds):
        data = {
            "data_fingerprints": {"train": "examples-train", "validation": "examples-validation"},
            "group": GROUP_ID,
            "fold": fold,
        }
        member = registry.choose_experiment(
            str(data_dir), experiment.BASE, experiment.fold_id(GROUP_ID, fold), config, data
        )
        experiment.start_experiment(member, config, data)
        member.update(status=experiment.FINISHED)
        members.append(member)
    return members


def write_data(data_dir: Path, size: int = 32) -> None:
    """Examples and sequences of all splits."""
    for split in PATIENTS:
        studies = make_studies(split, size)
        write_examples(data_dir, split, studies)
        write_sequences(data_dir, split, studies)


def tiny_config(**settings: Any) -> Config:
    """Settings under which a run takes seconds; `settings` change the base section."""
    base = BaseConfig(
        pretrained_model="small_cnn",
        pretrained_weights="none",
        batch_size=8,
        num_epochs=2,
        lr=3e-3,
        shuffle_buffer=16,
        prior_bias=True,
        positive_share=0.0,
        tta="none",
    )
    sequence = SequenceConfig(batch_size=4, num_epochs=2, num_layers=1, cell_size=8, lr=1e-2)
    return Config(base=dataclasses.replace(base, **settings), sequence=sequence)


def train_both(data_dir: Path) -> None:
    """Trains the base model BASE_MODEL_ID and the sequence model SEQUENCE_MODEL_ID."""
    from trainer import shard_files
    from trainer.train_base import train_base
    from trainer.train_sequence import train_sequence

    (base,) = train_base(str(data_dir), tiny_config(), BASE_MODEL_ID)
    priors = shard_files.label_priors(shard_files.read_examples(str(data_dir)).train)
    storage.write_json(base.path(TRANSFORM, LABEL_PRIORS), priors)
    train_sequence(str(data_dir), tiny_config(), BASE_MODEL_ID, SEQUENCE_MODEL_ID)


class Killed(BaseException):
    """Stands for a process that was killed."""


def kill_after_epoch(monkeypatch: pytest.MonkeyPatch, epochs_done: int) -> None:
    """Makes the next training stop as if it were killed right after an epoch's checkpoint."""
    from trainer import training

    save = training.Progress.save

    def save_and_die(progress: training.Progress, number: int) -> None:
        save(progress, number)
        if number == epochs_done:
            raise Killed

    monkeypatch.setattr(training.Progress, "save", save_and_die)
