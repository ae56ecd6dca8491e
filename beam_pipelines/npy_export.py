"""The five .npy files of the old scripts, on request; nothing of this program reads them.

train_embeddings.npy, train_labels.npy, train_mask.npy, test_embeddings.npy, test_img_ids.npy. They
are filled through memory maps, a sequence at a time: the first is 14 GB for the whole archive.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from beam_pipelines import schema, shards, storage, tfrecord
from beam_pipelines.layout import DataLayout
from beam_pipelines.sequence_shards import HOW_TO_MAKE

# What each split's files hold: file name -> attribute of schema.Sequence.
_FILES = {
    "train": {
        "train_embeddings": "embeddings",
        "train_labels": "labels",
        "train_mask": "mask",
    },
    "test": {"test_embeddings": "embeddings", "test_img_ids": "image_ids"},
}


def export_npy(layout: DataLayout, model_id: str, split: str) -> list[str]:
    """Writes a split's arrays into the data root.

    Arrays have one row a sequence: embeddings float32 (num_sequences, max_to_keep, embedding_dim),
    labels float32 (num_sequences, max_to_keep, 6), -1 for a slice without any, mask uint8
    (num_sequences, max_to_keep), image ids text (num_sequences, max_to_keep).

    Returns:
        The paths written; none for the validation split, which the old scripts did not have.

    Raises:
        UserError: the split's sequences are missing or incomplete.
    """
    files = _FILES.get(split, {})
    if not files:
        return []
    folder = layout.sequences(model_id, split)
    manifest = shards.read_manifest(folder, HOW_TO_MAKE)
    shapes = _shapes(manifest, _longest_id(folder, manifest) if split == "test" else 0)
    parent = layout.data_dir if storage.is_local(layout.data_dir) else None
    with tempfile.TemporaryDirectory(dir=parent, prefix="npy.tmp-") as temporary:
        arrays = {
            name: open_memmap(Path(temporary) / f"{name}.npy", "w+", *reversed(shapes[attribute]))
            for name, attribute in files.items()
        }
        for row, sequence in enumerate(_read(folder, manifest)):
            for name, attribute in files.items():
                arrays[name][row] = _value(sequence, attribute)
        for array in arrays.values():
            array.flush()
        return [_publish(layout, Path(temporary) / f"{name}.npy") for name in files]


def _value(sequence: schema.Sequence, attribute: str) -> Any:
    if attribute == "labels" and sequence.labels is None:
        # As for one slice without labels: -1, and 0 where padded.
        return -sequence.mask[:, np.newaxis].astype(np.float32)
    return getattr(sequence, attribute)


def _shapes(manifest: dict[str, Any], longest_id: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    settings = manifest["settings"]
    rows = (manifest["num_sequences"], settings["max_to_keep"])
    return {
        "embeddings": ((*rows, settings["embedding_dim"]), np.float32),
        "labels": ((*rows, schema.NUM_LABELS), np.float32),
        "mask": (rows, np.uint8),
        "image_ids": (rows, np.dtype(f"U{max(longest_id, 1)}")),
    }


def _read(folder: str, manifest: dict[str, Any]) -> Iterator[schema.Sequence]:
    for shard in manifest["shards"]:
        yield from map(
            schema.decode_sequence, tfrecord.read_file(storage.join(folder, shard["name"]))
        )


def _longest_id(folder: str, manifest: dict[str, Any]) -> int:
    ids = (i for sequence in _read(folder, manifest) for i in sequence.image_ids)
    return max(map(len, ids), default=0)


def _publish(layout: DataLayout, file: Path) -> str:
    target = layout.path(file.name)
    if storage.is_local(target):
        file.replace(storage.filesystem(target)[1])
    else:
        fs, name = storage.filesystem(target)
        fs.put_file(str(file), name)
    return target
