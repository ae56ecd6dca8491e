"""tf.data pipelines from shards to batches.

Training order follows from the seed and the epoch alone, so a run that resumes at epoch 3 sees
what it would have seen undisturbed. A shard holds whole series in order, and neighbouring slices
are nearly the same image: so files are shuffled, 16 of them are read in turns, and records are
shuffled once more in a buffer.

Evaluation reads every record once, in file order. Its last batch is padded to full size, because
a short one would be traced anew and could leave a device of MirroredStrategy with nothing to do;
the caller cuts the result to the number of records.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from beam_pipelines import schema
from configs import BaseConfig, ExamplesConfig
from trainer.augmentation import Augmentation
from trainer.shard_files import ShardFolder

FILES_IN_TURNS = 16
# A sequence of 60 x 1536 numbers is 370 KB: 0.2 GB.
SEQUENCE_SHUFFLE_BUFFER = 512
# Labels of padding and of slices without labels.
NO_LABEL = -1.0
_ANY = schema.SUBTYPES.index("any")


@dataclass(frozen=True)
class TrainingOrder:
    """In which order, and how often, training records come.

    Attributes:
        seed: of the order and of augmentation.
        batch_size: records in a step, over all devices.
        first_epoch: 0, or where a run resumes.
        num_epochs: at which epoch to stop.
        shuffle_buffer: records to shuffle from.
    """

    seed: int
    batch_size: int
    first_epoch: int
    num_epochs: int
    shuffle_buffer: int

    def steps_per_epoch(self, num_records: int) -> int:
        """Whole batches in an epoch; which records are left over changes with the epoch."""
        return num_records // self.batch_size


def training_examples(
    folder: ShardFolder, examples: ExamplesConfig, base: BaseConfig, order: TrainingOrder
) -> Any:
    """Batches of labelled slices.

    Returns:
        A dataset of `(images, labels)`: uint8 (batch_size, image_size, image_size, num_channels)
        and float32 (batch_size, 6).
    """
    windows = examples.channel_windows

    def parse(serialized: Any) -> tuple[Any, Any]:
        parsed = schema.parse_examples(serialized, examples.image_size, len(windows))
        return parsed["images"], parsed["labels"]

    if base.positive_share:
        records = _oversampled_records(folder, base.positive_share, order)
    else:
        keep = None if folder.num_labelled == folder.num_slices else _has_labels
        records = _shuffled_records(folder.paths, folder.num_labelled, order, keep)
    batches = records.batch(order.batch_size, drop_remainder=True)
    dataset = batches.map(parse, tf.data.AUTOTUNE, deterministic=True)
    augment = Augmentation(base.augment, base.window_jitter_hu, windows)
    if augment.changes:
        # The number of the step, from the first epoch on, seeds its batch.
        first_step = order.first_epoch * order.steps_per_epoch(folder.num_labelled)

        def change(step: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
            seed = tf.stack([tf.constant(order.seed, tf.int64), step])
            return augment(batch[0], seed), batch[1]

        numbered = dataset.enumerate(start=first_step)
        dataset = numbered.map(change, tf.data.AUTOTUNE, deterministic=True)
    return _finish(dataset)


def training_sequences(folder: ShardFolder, order: TrainingOrder) -> Any:
    """Batches of sequences; those of a group's members are shuffled as those of one model are.

    Returns:
        A dataset of `(inputs, labels)`: inputs as `sequence_model.build_sequence_model` says, with
        `fold` where the folder says of which fold a path is; labels are NO_LABEL where there is no
        slice or the slice has no labels.
    """
    records = _shuffled_records(
        folder.paths, folder.num_sequences, order, None, _sequence_reader(folder)
    )
    dataset = records.map(_sequence_parser(folder), tf.data.AUTOTUNE, deterministic=True)
    return _finish(dataset.batch(order.batch_size, drop_remainder=True))


def evaluation_images(folder: ShardFolder, examples: ExamplesConfig, batch_size: int) -> Any:
    """Batches of the images of every slice, in file order, uint8; the last is padded with air."""
    num_channels = len(examples.channel_windows)

    def parse(serialized: Any) -> Any:
        return schema.parse_examples(serialized, examples.image_size, num_channels)["images"]

    batches = tf.data.TFRecordDataset(list(folder.paths)).batch(batch_size)
    dataset = batches.map(parse, tf.data.AUTOTUNE, deterministic=True)
    return _evaluation(dataset, folder.num_slices, batch_size)


def evaluation_sequences(folder: ShardFolder, batch_size: int) -> Any:
    """Batches of the inputs of every sequence, in file order; the last is padded with zeros."""
    parse = _sequence_parser(folder)
    files = tf.data.Dataset.from_tensor_slices(list(folder.paths))
    records = files.flat_map(_sequence_reader(folder))
    inputs = records.map(lambda *r: parse(*r)[0], tf.data.AUTOTUNE, deterministic=True)
    return _evaluation(inputs.batch(batch_size), folder.num_sequences, batch_size)


def _sequence_reader(folder: ShardFolder) -> Callable[[Any], Any]:
    """From a path to its records; of a group's members to `(record, fold)`."""
    if not folder.path_folds:
        return tf.data.TFRecordDataset
    paths = tf.constant(list(folder.paths))
    folds = tf.constant(folder.path_folds, tf.int32)

    def read(path: Any) -> Any:
        fold = folds[tf.argmax(tf.cast(paths == path, tf.int32))]
        return tf.data.TFRecordDataset(path).map(lambda record: (record, fold))

    return read


def _sequence_parser(folder: ShardFolder) -> Callable[..., tuple[dict[str, Any], Any]]:
    """From what `_sequence_reader` reads to the sequence model's inputs, and labels."""
    length = folder.settings["max_to_keep"]
    widths = {
        "embeddings": folder.settings["embedding_dim"],
        "logits": schema.NUM_LABELS,
        "slice_features": folder.settings["num_slice_features"],
    }

    def parse(serialized: Any, *fold: Any) -> tuple[dict[str, Any], Any]:
        sequence = schema.parse_sequence(serialized, length)
        mask = sequence["mask"]
        inputs = {
            name: tf.ensure_shape(sequence[name], [length, width]) for name, width in widths.items()
        }
        inputs["mask"] = tf.cast(mask, tf.uint8)
        if fold:
            inputs["fold"] = fold[0]
        labels = tf.where(mask[:, tf.newaxis], sequence["labels"], NO_LABEL)
        return inputs, labels

    return parse


def _shuffled_records(
    paths: tuple[str, ...],
    num_records: int,
    order: TrainingOrder,
    keep: Callable[[Any], Any] | None,
    read: Callable[[Any], Any] = tf.data.TFRecordDataset,
) -> Any:
    """Serialized records of all epochs, one after the other, whole batches of each."""
    per_epoch = order.steps_per_epoch(num_records) * order.batch_size
    return _concatenate(
        _one_pass(paths, order, epoch, keep, read).take(per_epoch)
        for epoch in range(order.first_epoch, order.num_epochs)
    )


def _oversampled_records(folder: ShardFolder, positive_share: float, order: TrainingOrder) -> Any:
    """Records of which `positive_share` are positive for `any`; as many in an epoch as else."""
    per_epoch = order.steps_per_epoch(folder.num_labelled) * order.batch_size
    shares = [positive_share, 1.0 - positive_share]

    def one_epoch(epoch: int) -> Any:
        # Both kinds are read over and over until the epoch is full; they share the buffer.
        half = dataclasses.replace(order, shuffle_buffer=max(order.shuffle_buffer // 2, 1))
        kinds = [
            _one_pass(folder.paths, half, epoch, keep).repeat()
            for keep in (_is_positive, _is_negative)
        ]
        mixed = tf.data.Dataset.sample_from_datasets(
            kinds, shares, seed=_epoch_seed(order, epoch), rerandomize_each_iteration=False
        )
        return mixed.take(per_epoch)

    return _concatenate(one_epoch(epoch) for epoch in range(order.first_epoch, order.num_epochs))


def _one_pass(
    paths: tuple[str, ...],
    order: TrainingOrder,
    epoch: int,
    keep: Callable[[Any], Any] | None,
    read: Callable[[Any], Any] = tf.data.TFRecordDataset,
) -> Any:
    """Every record once, in the order of an epoch."""
    seed = _epoch_seed(order, epoch)
    files = tf.data.Dataset.from_tensor_slices(list(paths)).shuffle(
        len(paths), seed=seed, reshuffle_each_iteration=False
    )
    records = files.interleave(
        read,
        cycle_length=min(len(paths), FILES_IN_TURNS),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if keep is not None:
        records = records.filter(keep)
    return records.shuffle(order.shuffle_buffer, seed=seed, reshuffle_each_iteration=False)


def _epoch_seed(order: TrainingOrder, epoch: int) -> int:
    return order.seed * 1_000_003 + epoch


def _concatenate(epochs: Iterable[Any]) -> Any:
    return functools.reduce(lambda before, after: before.concatenate(after), epochs)


def _any(serialized: Any) -> Any:
    """The label `any`: 1 or 0, or -1 where a slice has no labels."""
    unknown = [-1] * schema.NUM_LABELS
    spec = {schema.LABEL: tf.io.FixedLenFeature([schema.NUM_LABELS], tf.int64, unknown)}
    return tf.io.parse_single_example(serialized, spec)[schema.LABEL][_ANY]


def _has_labels(serialized: Any) -> Any:
    return _any(serialized) >= 0


def _is_positive(serialized: Any) -> Any:
    return tf.equal(_any(serialized), 1)


def _is_negative(serialized: Any) -> Any:
    return tf.equal(_any(serialized), 0)


def _evaluation(dataset: Any, num_records: int, batch_size: int) -> Any:
    """Pads the last batch and counts the batches."""

    def pad(values: Any) -> Any:
        missing = batch_size - tf.shape(values)[0]
        paddings = [[0, missing]] + [[0, 0]] * (values.shape.rank - 1)
        return tf.ensure_shape(tf.pad(values, paddings), [batch_size, *values.shape[1:]])

    dataset = dataset.map(lambda batch: tf.nest.map_structure(pad, batch))
    # An error when the shards do not hold what their manifest says.
    return _finish(
        dataset.apply(tf.data.experimental.assert_cardinality(-(-num_records // batch_size)))
    )


def _finish(dataset: Any) -> Any:
    options = tf.data.Options()
    # One process feeds all its devices: there are no workers to divide the files among.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
