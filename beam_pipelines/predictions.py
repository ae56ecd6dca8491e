"""Probabilities for every slice, part by part, and the submission that is merged from them.

A part holds `image_id` and six probabilities a row. The submission is Kaggle's `ID,Label`, six rows
a slice, and is published only when it holds every slice that the metadata lists exactly once.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from beam_pipelines import schema, shards, storage, tfrecord
from beam_pipelines.embeddings import ExampleShard, score_examples
from beam_pipelines.errors import require
from beam_pipelines.examples import STAGE as EXAMPLES_STAGE
from beam_pipelines.layout import DataLayout
from beam_pipelines.metadata import STAGE as METADATA_STAGE
from beam_pipelines.progress import Advance, no_progress
from beam_pipelines.quarantine import read_quarantine
from beam_pipelines.slice_references import read_references
from trainer import metrics

STAGE = "predict"
# Kaggle clips to the same distance from 0 and 1 before it takes logarithms.
_SMALLEST = 1e-6
# Ids that are named in an error.
_NAMED = 5


def to_probabilities(logits: np.ndarray) -> np.ndarray:
    """Logistic function, clipped into the open interval (0, 1); float64 of the same shape."""
    return clip(metrics.sigmoid(logits))


def clip(probabilities: np.ndarray) -> np.ndarray:
    """Moves what is 0 or 1, or as good as that, into the open interval (0, 1)."""
    return np.clip(probabilities, _SMALLEST, 1.0 - _SMALLEST)


@dataclass
class PredictionBuilder:
    """Writes the probabilities of one shard's slices.

    Attributes:
        data_dir: data root.
        model_type: lstm (reads sequences) or base (reads examples).
        experiment_folder: of the experiment.
        base_model_id: of the base experiment whose sequences are read.
        model_fingerprint: of the model file.
        output_folder: where the parts go.
    """

    data_dir: str
    model_type: str
    experiment_folder: str
    base_model_id: str
    model_fingerprint: str
    output_folder: str
    _scorer: Any = field(default=None, repr=False)

    def setup(self) -> None:
        """Loads the model."""
        from trainer import experiment, inference

        kind = experiment.LSTM if self.model_type == "lstm" else experiment.BASE
        found = experiment.find_experiment(self.data_dir, kind, self.experiment_folder)
        load = inference.load_sequence if self.model_type == "lstm" else inference.load_base
        self._scorer = load(found)

    def build(self, task: ExampleShard, advance: Advance = no_progress) -> shards.Receipt:
        """Writes one part; see `transforms.Builder`."""
        name = task.receipt["name"].removesuffix(".tfrecord") + ".csv"
        expected = shards.fingerprint(
            STAGE, self.model_type, self.model_fingerprint, task.receipt["fingerprint"]
        )
        return shards.build_shard(
            self.output_folder, name, expected, lambda file: self._write(file, task, advance)
        )

    def _write(self, file: IO[bytes], task: ExampleShard, advance: Advance) -> shards.Receipt:
        layout = DataLayout(self.data_dir)
        if self.model_type == "lstm":
            folder = layout.sequences(self.base_model_id, task.split)
            score = self._score_sequences
        else:
            folder, score = layout.examples(task.split), self._score_examples
        found = score(storage.join(folder, task.receipt["name"]), advance)
        shards.check_complete(STAGE, task.receipt["num_slices"], len(found))
        for image_id, row in found.items():
            cells = ",".join(f"{value:.9f}" for value in row)
            file.write(f"{image_id},{cells}\n".encode())
        return {"slices_in": len(found), "num_slices": len(found), "quarantined": []}

    def _score_examples(self, path: str, advance: Advance) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for slices, _, logits in score_examples(path, self._scorer):
            ids = [item.image_id for item in slices]
            found.update(zip(ids, to_probabilities(logits), strict=True))
            advance(len(slices), 0)
        return found

    def _score_sequences(self, path: str, advance: Advance) -> dict[str, np.ndarray]:
        rows: list[tuple[str, np.ndarray]] = []
        seen: set[str] = set()
        records = map(schema.decode_sequence, tfrecord.read_file(path))
        for batch in _batches(records, self._scorer.batch_size):
            scored = list(self._score_windows(batch))
            rows += scored
            # A slice in two windows of its series counts once.
            before = len(seen)
            seen.update(image_id for image_id, _ in scored)
            advance(len(seen) - before, 0)
        ids, probabilities = zip(*rows, strict=True)
        return metrics.mean_by_image(ids, np.stack(probabilities))

    def _score_windows(self, batch: list[schema.Sequence]) -> Iterator[tuple[str, np.ndarray]]:
        """Image id and probabilities (6,) of every slice of every window."""
        logits = self._scorer(
            {
                "embeddings": np.stack([s.embeddings for s in batch]),
                "logits": np.stack([s.logits for s in batch]),
                "slice_features": np.stack([s.slice_features for s in batch]),
                "mask": np.stack([s.mask for s in batch]).astype(bool),
            }
        )
        for sequence, rows in zip(batch, to_probabilities(logits), strict=True):
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


def expected_image_ids(layout: DataLayout) -> tuple[list[str], list[str]]:
    """The test slices that a submission must hold.

    Returns:
        Image ids that have a prediction, in the order of the metadata, and image ids of slices
        in quarantine, which cannot have one.

    Raises:
        UserError: the metadata is missing.
    """
    subset = "test"
    bad = [b for b in read_quarantine(layout, EXAMPLES_STAGE) if b.subset == subset]
    bad_members = {slice_.member_name for slice_ in bad}
    scored: dict[str, None] = {}
    quarantined: dict[str, None] = {}
    for reference in read_references(layout, subset):
        target = quarantined if reference.member.name in bad_members else scored
        target[reference.image_id] = None
    for slice_ in read_quarantine(layout, METADATA_STAGE):
        if slice_.subset == subset:
            # Of an unreadable header the id is not known; in the archive the file's name is it.
            file_name = slice_.member_name.rsplit("/", 1)[-1]
            quarantined[slice_.image_id or file_name.rsplit(".", 1)[0]] = None
    return list(scored), [image_id for image_id in quarantined if image_id not in scored]


@dataclass(frozen=True)
class PublishPredictions:
    """Merges the parts into the submission.

    Attributes:
        parts_folder: where the parts are.
        output: the CSV to write, local or in a bucket.
        scored: image ids that must have a prediction, in the order of the output.
        quarantined: image ids without pixels, which get the label priors.
        priors: six probabilities, of which a small train split may make 0 or 1.
    """

    parts_folder: str
    output: str
    scored: tuple[str, ...]
    quarantined: tuple[str, ...]
    priors: tuple[float, ...]

    def __call__(self, receipts: list[shards.Receipt]) -> None:
        """Checks that every slice is there once and writes the CSV."""
        rows = dict(self._read_parts(receipts))
        missing = [image_id for image_id in self.scored if image_id not in rows]
        require(
            not missing and len(rows) == len(self.scored),
            f"{self.output}: not written: {len(missing)} of {len(self.scored)} slices of the "
            f"metadata have no prediction ({', '.join(missing[:_NAMED])}), "
            f"{len(rows) - len(self.scored) + len(missing)} predictions are of no slice; run the "
            "stages from build_examples on again",
        )
        with storage.open_atomic(self.output) as file:
            file.write(b"ID,Label\n")
            for image_id in self.scored:
                file.write(_submission_rows(image_id, rows[image_id]))
            priors = [f"{prior:.9f}" for prior in clip(np.array(self.priors))]
            for image_id in self.quarantined:
                file.write(_submission_rows(image_id, priors))

    def _read_parts(self, receipts: list[shards.Receipt]) -> Iterator[tuple[str, list[str]]]:
        seen: set[str] = set()
        for receipt in receipts:
            text = storage.read_bytes(storage.join(self.parts_folder, receipt["name"])).decode()
            for image_id, *row in csv.reader(io.StringIO(text)):
                require(
                    image_id not in seen,
                    f"{self.parts_folder}: {image_id} has two predictions; run the stages from "
                    "build_examples on again",
                )
                seen.add(image_id)
                yield image_id, row


def _submission_rows(image_id: str, cells: list[str]) -> bytes:
    pairs = zip(schema.SUBTYPES, cells, strict=True)
    return "".join(f"{image_id}_{subtype},{cell}\n" for subtype, cell in pairs).encode()
