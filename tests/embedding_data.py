"""Small experiments and embedding shards, made with the schema's own encoders."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from beam_pipelines import schema, shards, storage, tfrecord
from beam_pipelines.layout import DataLayout, shard_name
from beam_pipelines.schema import NUM_LABELS, Slice
from configs import BaseConfig, Config, ExamplesConfig, SequenceConfig

EMBEDDING_DIM = 8
MODEL_ID = "base1"
LSTM_ID = "lstm1"
GROUP_ID = "group1"
CONFIG = Config(
    ExamplesConfig(image_size=40, channels="windows"),
    BaseConfig(pretrained_model="small_cnn", pretrained_weights="none", tta="none"),
    SequenceConfig(max_to_keep=4, num_layers=1, cell_size=3, residual=True),
)


def make_items(
    patient: str, num_slices: int, spacing_mm: float = 5.0, labelled: bool = True
) -> list[Slice]:
    """An ordered series; its labels follow from its ids."""

    def label(image_id: str) -> tuple[int, ...]:
        drawn = np.random.default_rng(zlib.crc32(image_id.encode())).random(NUM_LABELS - 1) < 0.4
        return (*map(int, drawn), int(drawn.any()))

    last = num_slices - 1
    return [
        Slice(
            image_id=f"{patient}-{i}",
            patient_id=patient,
            study_instance_uid=f"{patient}-study",
            series_instance_uid=f"{patient}-series",
            index=i,
            num_slices=num_slices,
            position_mm=20 + i * spacing_mm,
            gap_below_mm=spacing_mm if i > 0 else 0.0,
            gap_above_mm=spacing_mm if i < last else 0.0,
            pixel_spacing_mm=0.5,
            label=label(f"{patient}-{i}") if labelled else None,
        )
        for i in range(num_slices)
    ]


def embedding_of(image_id: str, model_id: str = MODEL_ID) -> tuple[np.ndarray, np.ndarray]:
    """What a model makes of a slice, which follows from their ids: float32 (8,) and (6,)."""
    seed = image_id if model_id == MODEL_ID else f"{model_id} {image_id}"
    rng = np.random.default_rng(zlib.crc32(seed.encode()) + 1)
    return rng.normal(size=EMBEDDING_DIM).astype("f4"), rng.normal(size=NUM_LABELS).astype("f4")


def write_embeddings(
    data_dir: Path,
    split: str,
    series: list[list[Slice]],
    *,
    num_shards: int = 2,
    examples_fingerprint: str = "",
    model_id: str = MODEL_ID,
    folds: int = 1,
    fold: int = 0,
) -> None:
    """Writes a split's embedding shards; slices are dealt to shards whatever their series."""
    folder = DataLayout(str(data_dir)).embeddings(model_id, split)
    items = [item for group in series for item in group]
    receipts = []
    for index in range(num_shards):
        name = shard_name(index, num_shards)
        mine = items[index::num_shards]
        ids = [(item.image_id, item.label) for item in mine]
        with shards.write_shard(folder, name, shards.fingerprint(ids)) as (file, receipt):
            for item in mine:
                embedding = embedding_of(item.image_id, model_id)
                tfrecord.write_record(file, schema.encode_embedding(item, *embedding))
            receipt["num_slices"] = len(mine)
        receipts.append(receipt)
    labels = np.array([item.label for item in items if item.label is not None]).reshape(-1, 6)
    settings = {
        "model_id": model_id,
        "embedding_dim": EMBEDDING_DIM,
        "examples_fingerprint": examples_fingerprint or f"examples-{split}",
        "val_ratio": 0.1,
        "folds": folds,
        "fold": fold,
    }
    shards.publish_manifest(
        folder,
        "extract_embeddings",
        settings,
        receipts,
        num_slices=len(items),
        num_labelled=len(labels),
        num_patients=len({item.patient_id for item in items}),
        num_series=len(series),
        label_counts=dict(
            zip(
                schema.SUBTYPES,
                labels.sum(axis=0).tolist() if len(labels) else [0] * 6,
                strict=True,
            )
        ),
    )


def write_group_embeddings(
    data_dir: Path, split: str, series: list[list[Slice]], folds: int
) -> None:
    """Writes what each member of a group has made: of train every `folds`-th series, else all."""
    for fold in range(folds):
        whole = split != "train"
        write_embeddings(
            data_dir,
            split,
            series if whole else series[fold::folds],
            model_id=f"{GROUP_ID}-fold{fold}",
            folds=1 if whole else folds,
            fold=0 if whole else fold,
        )


def make_experiment(
    data_dir: Path, kind: str, model_id: str = "", config: Config = CONFIG, **data: Any
) -> Any:
    """An experiment that is finished, but for its model."""
    from trainer import experiment, registry

    fingerprints = {"train": "examples-train", "validation": "examples-validation"}
    model_id = model_id or (MODEL_ID if kind == experiment.BASE else LSTM_ID)
    record = {"data_fingerprints": fingerprints, **data}
    made = registry.choose_experiment(str(data_dir), kind, model_id, config, record)
    experiment.start_experiment(made, config, record)
    made.update(status=experiment.FINISHED)
    storage.write_text(made.model_file, "the model's bytes")
    return made


def make_group(data_dir: Path, folds: int, **data: Any) -> list[Any]:
    """The members of a group, as `make_experiment` makes them."""
    from trainer import experiment

    config = dataclasses.replace(CONFIG, base=dataclasses.replace(CONFIG.base, folds=folds))
    return [
        make_experiment(
            data_dir,
            experiment.BASE,
            experiment.fold_id(GROUP_ID, fold),
            config,
            group=GROUP_ID,
            fold=fold,
            **data,
        )
        for fold in range(folds)
    ]
