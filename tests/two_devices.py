"""Trains both models on one and on two logical CPU devices; prints their losses as JSON.

A program of its own, because devices are divided before TensorFlow starts.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import trainer_data

from configs import Config
from trainer import group_files, input_pipeline, judging, shard_files, strategy
from trainer.base_model import build_base_model
from trainer.losses import LOSSES, oversampled
from trainer.optimizer import make_optimizer
from trainer.sequence_model import build_sequence_model

STEPS = 6


def main() -> None:
    """Writes tiny data into the current folder and trains on it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    data_dir = Path.cwd()
    trainer_data.write_data(data_dir)
    results: dict[str, Any] = {}
    for name, devices in (("one", ["CPU:0"]), ("two", ["CPU:0", "CPU:1"])):
        distribution = strategy.make_strategy(devices)
        assert distribution.num_replicas_in_sync == len(devices)
        results[name] = {
            "base": _base(str(data_dir), distribution),
            "lstm": _sequence(str(data_dir), distribution),
        }
    # Everything that trains is loaded by now.
    results["beam_is_loaded"] = "apache_beam" in sys.modules
    print(json.dumps(results))


def _config() -> Config:
    # Dropout draws on each device for itself; all else must not depend on the number of devices.
    # Clipping at 0.1 bites in every step. The base model's steps are small, because Adam makes much
    # of the last digits of small gradients, in which it shows in what order they were added up.
    alike = {"dropout_rate": 0.0, "clip_norm": 0.1, "weight_decay": 0.01, "ema_decay": 0.9}
    config = trainer_data.tiny_config(num_epochs=2, lr=1e-4, positive_share=0.5, **alike)
    sequence = dataclasses.replace(config.sequence, num_epochs=STEPS // 2, lr=1e-2, **alike)
    return dataclasses.replace(config, sequence=sequence)


def _base(data_dir: str, distribution: Any) -> list[float]:
    config, splits = _config(), shard_files.read_examples(data_dir)
    base, priors = config.base, shard_files.label_priors(splits.train)
    examples = dataclasses.replace(config.examples, image_size=32, channels="windows")
    order = input_pipeline.TrainingOrder(0, 8, 0, base.num_epochs, 16)
    keras.utils.set_random_seed(0)
    with distribution.scope():
        model = build_base_model(base, 32, priors)
        loss = oversampled(base.loss, base.positive_share, priors["any"])
        model.compile(make_optimizer(base, STEPS), loss)
    dataset = input_pipeline.training_examples(splits.train, examples, base, order)
    return _fit(model, dataset)


def _sequence(data_dir: str, distribution: Any) -> list[float]:
    lstm = _config().sequence
    splits = group_files.read_group_sequences(data_dir, [trainer_data.BASE_MODEL_ID])
    order = input_pipeline.TrainingOrder(0, 4, 0, lstm.num_epochs, 16)
    keras.utils.set_random_seed(0)
    with distribution.scope():
        model = build_sequence_model(lstm, 12, 3)
        model.compile(make_optimizer(lstm, STEPS), LOSSES[lstm.loss])
    dataset = input_pipeline.training_sequences(splits.train, order)
    judge = judging.SequenceJudge(splits.validation, 4)
    return [*_fit(model, dataset), *judge(model).values()]


def _fit(model: Any, dataset: Any) -> list[float]:
    """The loss of each epoch, and the sum of all weights."""
    history = model.fit(dataset, steps_per_epoch=2, epochs=STEPS // 2, verbose=0, shuffle=False)
    weights = float(np.sum([np.abs(w).sum() for w in model.get_weights()]))
    return [*history.history["loss"], weights]


if __name__ == "__main__":
    main()
