"""Reads training batches, alone or with a model that trains on them.

    python -m benchmarks.training_input --data_dir DATA --image_size 256 --images 4000
    python -m benchmarks.training_input --data_dir DATA --image_size 256 --train_steps 30

The first reads that many images, shuffled, decoded, augmented and batched as train_base has them.
With `--plain` they are only read, decoded and batched: what no input can do without. The second
trains `small_cnn` and prints, as JSON, the seconds of a step and how much of it the model waited;
and the seconds of a step on one batch that is always the same.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

from beam_pipelines import schema
from beam_pipelines.tensorflow_setup import load_tensorflow
from configs import BaseConfig, ExamplesConfig
from trainer import shard_files
from trainer.shard_files import ShardFolder

_BATCH_SIZE = 32
_WARM_UP_STEPS = 3


def training_batches(folder: ShardFolder, image_size: int, num_images: int) -> Any:
    """A dataset as train_base makes it, over as many epochs as it takes."""
    from trainer.input_pipeline import TrainingOrder, training_examples

    config = BaseConfig(positive_share=0.0)
    examples = ExamplesConfig(image_size=image_size, channels="windows", crop="none")
    per_epoch = folder.num_labelled // _BATCH_SIZE * _BATCH_SIZE
    epochs = -(-num_images // per_epoch)
    order = TrainingOrder(config.seed, _BATCH_SIZE, 0, epochs, config.shuffle_buffer)
    return training_examples(folder, examples, config, order)


def plain_batches(folder: ShardFolder, image_size: int) -> Any:
    """A dataset that is read and decoded in file order, without end."""
    import tensorflow as tf

    def parse(record: Any) -> tuple[Any, Any]:
        example = schema.parse_example(record, image_size)
        return example["image"], example["label"]

    records = tf.data.TFRecordDataset(list(folder.paths)).repeat()
    return records.map(parse, tf.data.AUTOTUNE).batch(_BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def read(dataset: Any, num_images: int) -> None:
    """Reads whole batches of a dataset."""
    for _ in itertools.islice(dataset, num_images // _BATCH_SIZE):
        pass


def train(folder: ShardFolder, image_size: int, num_steps: int) -> dict[str, float]:
    """Trains on real batches and on one that stays.

    Returns:
        `step`, seconds a step on real batches; `wait`, seconds of it in which the model waited for
        its batch; `step_constant`, seconds a step on one batch in memory.
    """
    from trainer.base_model import build_base_model
    from trainer.losses import LOSSES
    from trainer.optimizer import make_optimizer

    base = BaseConfig(pretrained_model="small_cnn", pretrained_weights="none")
    model = build_base_model(base, image_size)
    model.compile(make_optimizer(base, num_steps), LOSSES[base.loss], jit_compile=False)
    all_steps = num_steps + _WARM_UP_STEPS
    batches = iter(training_batches(folder, image_size, all_steps * _BATCH_SIZE))
    images, labels = next(batches)
    for _ in range(_WARM_UP_STEPS):
        model.train_on_batch(images, labels)
    started, waited = time.monotonic(), 0.0
    for _ in range(num_steps):
        asked = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - asked
        model.train_on_batch(*batch)
    step = (time.monotonic() - started) / num_steps
    started = time.monotonic()
    for _ in range(num_steps):
        model.train_on_batch(images, labels)
    constant = (time.monotonic() - started) / num_steps
    return {"step": step, "wait": waited / num_steps, "step_constant": constant}


def main() -> None:
    """Reads images, or trains on them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_input", description=__doc__
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--image_size", type=int, required=True)
    parser.add_argument("--images", type=int, help="read so many")
    parser.add_argument("--plain", action="store_true", help="without shuffling and augmentation")
    parser.add_argument("--train_steps", type=int, help="train so many steps")
    args = parser.parse_args()
    load_tensorflow()
    folder = shard_files.read_folder(str(args.data_dir / "train"), shard_files.BUILD_EXAMPLES)
    if args.train_steps:
        print(json.dumps(train(folder, args.image_size, args.train_steps)))
    elif args.plain:
        read(plain_batches(folder, args.image_size), args.images)
    else:
        read(training_batches(folder, args.image_size, args.images), args.images)


if __name__ == "__main__":
    main()
