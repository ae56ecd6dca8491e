"""Probabilities for every slice, part by part.

They are averaged over the windows that see a slice, then over the members of a group of base
models, then tempered. A part holds `image_id` and six of them a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import numpy as np

from beam_pipelines import schema, shards, storage, tfrecord
from beam_pipelines.embeddings import score_examples
from beam_pipelines.errors import require
from beam_pipelines.progress import Advance, no_progress
from trainer import calibration, metrics

STAGE = "predict"
# Kaggle clips to the same distance from 0 and 1 before it takes logarithms.
_SMALLEST = 1e-6


def clip(probabilities: np.ndarray) -> np.ndarray:
    """Moves what is 0 or 1, or as good as that, into the open interval (0, 1)."""
    return np.clip(probabilities, _SMALLEST, 1.0 - _SMALLEST)


class ShardToScore(NamedTuple):
    """A shard of the test split; a task of `PredictionBuilder`.

    Attributes:
        name: its file name, the same in every folder that is read.
        num_slices: slices in it.
        fingerprints: of the shard in each of these folders.
    """

    name: str
    num_slices: int
    fingerprints: tuple[str, ...]


def shards_to_score(folders: Sequence[str], how_to_make: str) -> list[ShardToScore]:
    """The shards of the folders that are read: one of examples, or each member's sequences.

    Args:
        folders: the folders.
        how_to_make: the command that makes them, for the error.

    Raises:
        UserError: a folder is missing or incomplete, or has other shards than the first.
    """
    manifests = [shards.read_manifest(folder, how_to_make) for folder in folders]
    first = [(shard["name"], shard["num_slices"]) for shard in manifests[0]["shards"]]
    for folder, manifest in zip(folders, manifests, strict=True):
        require(
            [(shard["name"], shard["num_slices"]) for shard in manifest["shards"]] == first,
            f"{folder}: not the slices of {folders[0]}; run extract_embeddings and then "
            f"{how_to_make} again",
        )
    same = zip(*(manifest["shards"] for manifest in manifests), strict=True)
    return [
        ShardToScore(name, num_slices, tuple(shard["fingerprint"] for shard in every))
        for (name, num_slices), every in zip(first, same, strict=True)
    ]


def mean_over_members(members: Sequence[dict[str, np.ndarray]], name: str) -> dict[str, np.ndarray]:
    """Averages what members say of the same slices, by image id in the order of the first.

    Args:
        members: probabilities, of shape (6,), by image id, from each member; at least one.
        name: of the shard, for the error.

    Raises:
        UserError: members have not seen the same slices.
    """
    for member in members[1:]:
        require(
            member.keys() == members[0].keys(),
            f"{STAGE} {name}: the members of the group have not seen the same slices; run "
            "extract_embeddings and build_sequences again for the whole group",
        )
    return {key: np.mean([member[key] for member in members], axis=0) for key in members[0]}


@dataclass
class PredictionBuilder:
    """Writes the probabilities of one shard's slices.

    Attributes:
        data_dir: data root.
        model_type: lstm (reads sequences) or base (reads examples).
        experiment_folders: of the sequence experiment, or of the base experiments.
        shard_folders: what is read: each base model's sequences in the order of their folds, or
            the examples.
        model_fingerprint: of the model files.
        temperature: see `trainer.calibration.temper`.
        output_folder: where the parts go.
    """

    data_dir: str
    model_type: str
    experiment_folders: tuple[str, ...]
    shard_folders: tuple[str, ...]
    model_fingerprint: str
    temperature: float
    output_folder: str
    _scorers: list[Any] = field(default_factory=list, repr=False)

    def setup(self) -> None:
        """Loads the models."""
        from trainer import experiment, inference, registry

        kind = experiment.LSTM if self.model_type == "lstm" else experiment.BASE
        load = inference.load_sequence if self.model_type == "lstm" else inference.load_base
        self._scorers = [
            load(registry.find_experiment(self.data_dir, kind, folder))
            for folder in self.experiment_folders
        ]

    def build(self, task: ShardToScore, advance: Advance = no_progress) -> shards.Receipt:
        """Writes one part; see `transforms.Builder`."""
        name = task.name.removesuffix(".tfrecord") + ".csv"
        expected = shards.fingerprint(
            STAGE, self.model_type, self.model_fingerprint, self.temperature, *task.fingerprints
        )
        return shards.build_shard(
            self.output_folder, name, expected, lambda file: self._write(file, task, advance)
        )

    def _write(self, file: IO[bytes], task: ShardToScore, advance: Advance) -> shards.Receipt:
        members = list(self._score(task.name, advance))
        found = mean_over_members(members, task.name)
        shards.check_complete(STAGE, task.num_slices, len(found))
        require(
            all(np.isfinite(row).all() for row in found.values()),
            f"{', '.join(self.experiment_folders)}: probabilities that are no numbers: its "
            "training or that of its base model has diverged; train again with a smaller lr",
        )
        for image_id, row in found.items():
            final = clip(calibration.temper(row, self.temperature))
            cells = ",".join(f"{value:.9f}" for value in final)
            file.write(f"{image_id},{cells}\n".encode())
        return {"slices_in": len(found), "num_slices": len(found), "quarantined": []}

    def _score(self, name: str, advance: Advance) -> Iterator[dict[str, np.ndarray]]:
        """What each member says of the slices of a shard; the last one's progress is shown."""
        paths = [storage.join(folder, name) for folder in self.shard_folders]
        if self.model_type == "lstm":
            for fold, path in enumerate(paths):
                last = fold == len(paths) - 1
                yield self._score_sequences(path, fold, advance if last else no_progress)
        else:
            for scorer in self._scorers:
                last = scorer is self._scorers[-1]
                yield _score_examples(paths[0], scorer, advance if last else no_progress)

    def _score_sequences(self, path: str, fold: int, advance: Advance) -> dict[str, np.ndarray]:
        rows: list[tuple[str, np.ndarray]] = []
        seen: set[str] = set()
        (scorer,) = self._scorers
        records = map(schema.decode_sequence, tfrecord.read_file(path))
        for batch in _batches(records, scorer.batch_size):
            scored = list(_score_windows(scorer, batch, fold))
            rows += scored
            # A slice in two windows of its series counts once.
            before = len(seen)
            seen.update(image_id for image_id, _ in scored)
            advance(len(seen) - before, 0)
        ids, probabilities = zip(*rows, strict=True)
        return metrics.mean_by_image(ids, np.stack(probabilities))


def _score_examples(path: str, scorer: Any, advance: Advance) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for slices, _, logits in score_examples(path, scorer):
        ids = [item.image_id for item in slices]
        found.update(zip(ids, metrics.sigmoid(logits), strict=True))
        advance(len(slices), 0)
    return found


def _score_windows(
    scorer: Any, batch: list[schema.Sequence], fold: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Image id and probabilities (6,) of every slice of every window."""
    logits = scorer(
        {
            "embeddings": np.stack([s.embeddings for s in batch]),
            "logits": np.stack([s.logits for s in batch]),
            "slice_features": np.stack([s.slice_features for s in batch]),
            "mask": np.stack([s.mask for s in batch]).astype(bool),
            "fold": np.full(len(batch), fold, np.int32),
        }
    )
    for sequence, rows in zip(batch, metrics.sigmoid(logits), strict=True):
        for image_id, row in zip(sequence.image_ids, rows, strict=True):
            if image_id:
                yield image_id, row


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
