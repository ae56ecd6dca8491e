"""Examples to embeddings: one shard in, one shard out, through a trained base model."""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from beam_pipelines import schema, shards, storage, tfrecord
from beam_pipelines.examples import HOW_TO_MAKE as HOW_TO_MAKE_EXAMPLES
from beam_pipelines.layout import DataLayout
from beam_pipelines.progress import Advance, no_progress
from beam_pipelines.splits import in_fold

if TYPE_CHECKING:
    from trainer.experiment import Experiment

STAGE = "extract_embeddings"
HOW_TO_MAKE = "python -m beam_pipelines.extract_embeddings"
# Batches that are decoded or in the model at a time.
_IN_WORK = 2


class ExampleShard(NamedTuple):
    """A shard of examples to be read; a task of builders.

    Attributes:
        split: train, validation or test.
        receipt: the shard's entry in the manifest.
    """

    split: str
    receipt: shards.Receipt


def example_shards(layout: DataLayout, splits: Iterable[str]) -> list[ExampleShard]:
    """All shards of some splits.

    Raises:
        UserError: a split is missing or incomplete.
    """
    return [
        ExampleShard(split, receipt)
        for split in splits
        for receipt in shards.read_manifest(layout.examples(split), HOW_TO_MAKE_EXAMPLES)["shards"]
    ]


def unseen_shards(
    layout: DataLayout, splits: Iterable[str], folds: int, fold: int
) -> list[ExampleShard]:
    """The shards of some splits that a fold's model was not trained on, for train its own fold.

    The others are those of `trainer.shard_files.without_fold`. A single model, (1, 0), has no fold
    and is shown every shard.

    Args:
        layout: of the data root.
        splits: which splits.
        folds: how many folds the train split was divided into.
        fold: the one that the model was trained without.

    Raises:
        UserError: a split is missing or incomplete.
    """
    tasks = []
    for split in splits:
        every = example_shards(layout, [split])
        tasks += [
            task
            for shard, task in enumerate(every)
            if split != "train" or in_fold(shard, folds, fold)
        ]
    return tasks


def fold_in(layout: DataLayout, splits: Iterable[str], experiment: "Experiment") -> tuple[int, int]:
    """How many folds a data root has for a model, and which is unseen: see `Experiment.fold`.

    Another data root's train split has no folds, (1, 0): no member has seen any of it.

    Raises:
        UserError: the train split is among the splits, but missing or incomplete.
    """
    folds, fold = experiment.fold()
    if folds == 1 or "train" not in splits:
        return folds, fold
    train = shards.read_manifest(layout.examples("train"), HOW_TO_MAKE_EXAMPLES)
    trained_on = experiment.record()["data_fingerprints"]["train"]
    return (folds, fold) if train["fingerprint"] == trained_on else (1, 0)


def fold_of(settings: dict[str, Any]) -> tuple[int, int]:
    """Which part of its split embeddings are, as their manifest's settings say: `fold_in`.

    Manifests that were written before there were folds do not say; they are of one model.
    """
    return settings.get("folds", 1), settings.get("fold", 0)


def check_images(layout: DataLayout, experiment: Any, splits: Iterable[str]) -> None:
    """Checks that the examples of some splits are such as a base experiment was trained on.

    Raises:
        UserError: they are not, or a split is missing.
    """
    for split in splits:
        folder = layout.examples(split)
        settings = shards.read_manifest(folder, HOW_TO_MAKE_EXAMPLES)["settings"]
        experiment.check_images(folder, settings)


def file_fingerprint(path: str) -> str:
    """A hash of a file's bytes: which model this is."""
    digest = hashlib.blake2b(digest_size=12)
    with storage.open_read(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def score_examples(
    path: str, scorer: Any
) -> Iterator[tuple[list[schema.Slice], np.ndarray, np.ndarray]]:
    """Runs a base model over the examples of a shard.

    Two batches are in work at a time: while one is in the model, the images of the next are
    decoded, and the caller encodes and writes the one before.

    Args:
        path: the shard.
        scorer: a `trainer.inference.BaseScorer`.

    Yields:
        For each batch its slices, embeddings, float32 (n, embedding_dim), and logits, (n, 6).
    """
    records = tfrecord.read_file(path)
    running: deque[tuple[list[bytes], Future[Any]]] = deque()

    def finish() -> tuple[list[schema.Slice], np.ndarray, np.ndarray]:
        batch, scores = running.popleft()
        embeddings, logits = scores.result()
        return [schema.decode_slice(record)[0] for record in batch], embeddings, logits

    with ThreadPoolExecutor(_IN_WORK) as pool:
        while batch := list(itertools.islice(records, scorer.batch_size)):
            running.append((batch, pool.submit(scorer.score_examples, batch)))
            if len(running) > _IN_WORK:
                yield finish()
        while running:
            yield finish()


@dataclass
class EmbeddingBuilder:
    """Writes the embeddings of one example shard.

    Attributes:
        data_dir: data root.
        experiment_folder: of the base experiment.
        model_id: its id; names the folder of the embeddings.
        model_fingerprint: of its model file.
        tta: its test-time augmentation, which the scorer does.
    """

    data_dir: str
    experiment_folder: str
    model_id: str
    model_fingerprint: str
    tta: str
    _scorer: Any = field(default=None, repr=False)

    def setup(self) -> None:
        """Loads the model."""
        from trainer import experiment, inference, registry

        found = registry.find_experiment(self.data_dir, experiment.BASE, self.experiment_folder)
        self._scorer = inference.load_base(found)

    def build(self, task: ExampleShard, advance: Advance = no_progress) -> shards.Receipt:
        """Writes one shard; see `transforms.Builder`."""
        layout = DataLayout(self.data_dir)
        folder, name = layout.embeddings(self.model_id, task.split), task.receipt["name"]
        expected = shards.fingerprint(
            STAGE,
            schema.FORMAT_VERSION,
            self.model_fingerprint,
            self.tta,
            task.receipt["fingerprint"],
        )
        source = storage.join(layout.examples(task.split), name)
        return shards.build_shard(
            folder, name, expected, lambda file: self._write(file, source, task, advance)
        )

    def _write(
        self, file: IO[bytes], source: str, task: ExampleShard, advance: Advance
    ) -> shards.Receipt:
        written = 0
        for slices, embeddings, logits in score_examples(source, self._scorer):
            for item, embedding, logit in zip(slices, embeddings, logits, strict=True):
                tfrecord.write_record(file, schema.encode_embedding(item, embedding, logit))
            written += len(slices)
            advance(len(slices), 0)
        shards.check_complete(f"{STAGE} {source}", task.receipt["num_slices"], written)
        return {
            **{key: task.receipt[key] for key in (*shards.COUNTS, "label_counts")},
            "split": task.split,
            "embedding_dim": self._scorer.embedding_dim,
            "slices_in": written,
            "quarantined": [],
        }


@dataclass(frozen=True)
class PublishEmbeddings:
    """Writes each split's manifest once all its shards are there.

    Attributes:
        data_dir: data root.
        model_id: of the base experiment.
        model_fingerprint: of its model file.
        tta: its test-time augmentation.
        splits: which splits were made.
        folds: how many folds the train split has.
        fold: the one that was made, of train; see `fold_in`.
    """

    data_dir: str
    model_id: str
    model_fingerprint: str
    tta: str
    splits: tuple[str, ...]
    folds: int
    fold: int

    def __call__(self, receipts: list[shards.Receipt]) -> None:
        """Publishes."""
        layout = DataLayout(self.data_dir)
        for split in self.splits:
            examples = shards.read_manifest(layout.examples(split), HOW_TO_MAKE_EXAMPLES)
            folds, fold = (self.folds, self.fold) if split == "train" else (1, 0)
            expected = unseen_shards(layout, [split], folds, fold)
            mine = [receipt for receipt in receipts if receipt["split"] == split]
            settings = {
                "model_id": self.model_id,
                "model_fingerprint": self.model_fingerprint,
                "tta": self.tta,
                # Which part of the split this is.
                "folds": folds,
                "fold": fold,
                # A split without slices has no embeddings either.
                "embedding_dim": max((r["embedding_dim"] for r in mine), default=0),
                "examples_fingerprint": examples["fingerprint"],
                "val_ratio": examples["settings"]["val_ratio"],
            }
            totals = shards.totals_of(mine)
            num_slices = sum(task.receipt["num_slices"] for task in expected)
            shards.check_complete(STAGE, num_slices, totals["num_slices"])
            shards.publish_manifest(
                layout.embeddings(self.model_id, split),
                STAGE,
                settings,
                [shards.for_manifest(receipt) for receipt in mine],
                **totals,
            )
