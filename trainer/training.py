"""What both mains share: train with checkpoints, resume, judge each epoch, save."""

import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer import experiment as experiments
from trainer import model_files
from trainer.experiment import Experiment
from trainer.input_pipeline import TrainingOrder

Judge = Callable[[Any], dict[str, float]]
CHECKPOINTS_KEPT = 2


class Progress:
    """A model, its optimizer and the number of epochs done, saved together.

    Variables are listed rather than found by TensorFlow from the model, which passes over the
    states of dropout's random numbers.
    """

    def __init__(self, model: Any, folder: str) -> None:
        self.epochs_done = tf.Variable(0, dtype=tf.int64, trainable=False, name="epochs_done")
        checkpoint = tf.train.Checkpoint(
            model=[variable.value for variable in model.variables],
            optimizer=[variable.value for variable in model.optimizer.variables],
            epochs_done=self.epochs_done,
        )
        self._manager = tf.train.CheckpointManager(
            checkpoint, folder, max_to_keep=CHECKPOINTS_KEPT, checkpoint_name="epoch"
        )
        self._checkpoint = checkpoint

    def restore(self) -> int:
        """Takes up the last saved state, if there is one; returns the number of epochs done."""
        if self._manager.latest_checkpoint:
            status = self._checkpoint.restore(self._manager.latest_checkpoint)
            status.assert_consumed()
        return int(self.epochs_done.numpy())

    def save(self, epochs_done: int) -> None:
        """Saves the state after an epoch."""
        self.epochs_done.assign(epochs_done)
        self._manager.save(checkpoint_number=epochs_done)


class EpochEnd(keras.callbacks.Callback):
    """Judges the model on validation after each epoch, notes it and saves a checkpoint."""

    def __init__(self, experiment: Experiment, progress: Progress, judge: Judge) -> None:
        super().__init__()
        self._experiment = experiment
        self._progress = progress
        self._judge = judge
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds validation losses to `logs`, where TensorBoard and the progress bar find them."""
        logs = {} if logs is None else logs
        seconds = time.monotonic() - self._started
        logs.update(self._judge(self.model))
        # The record before the checkpoint: an epoch that is done again overwrites its line.
        before = [line for line in self._experiment.record()["history"] if line["epoch"] <= epoch]
        line = {"epoch": epoch + 1, "train_seconds": round(seconds, 3)}
        line.update({name: float(value) for name, value in logs.items()})
        self._experiment.update(history=[*before, line])
        self._progress.save(epoch + 1)


def train(
    model: Any,
    experiment: Experiment,
    make_dataset: Callable[[TrainingOrder], Any],
    order: TrainingOrder,
    num_records: int,
    judge: Judge,
) -> dict[str, float]:
    """Trains a compiled model from its last checkpoint to the end and saves it.

    Args:
        model: the compiled model, made under its strategy.
        experiment: where its state goes.
        make_dataset: makes the training batches from the order's first epoch on.
        order: the order, from epoch 0 on.
        num_records: train records in an epoch.
        judge: the losses of a model on validation, by name.

    Returns:
        The validation losses of the trained model.
    """
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
        progress = Progress(model, experiment.path("checkpoints"))
    first_epoch = progress.restore()
    if first_epoch:
        print(f"resuming {experiment.folder} after epoch {first_epoch}", flush=True)
    if first_epoch < order.num_epochs:
        resumed = TrainingOrder(**{**vars(order), "first_epoch": first_epoch})
        model.fit(
            make_dataset(resumed),
            initial_epoch=first_epoch,
            epochs=order.num_epochs,
            steps_per_epoch=order.steps_per_epoch(num_records),
            # The dataset has its own order.
            shuffle=False,
            # A bar where someone watches, a line an epoch in a log.
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                EpochEnd(experiment, progress, judge),
                keras.callbacks.TensorBoard(experiment.path("tensorboard"), write_graph=False),
            ],
        )
    losses = judge(model)
    model_files.save_model(model, experiment.model_file)
    experiment.update(status=experiments.FINISHED, validation=losses)
    return losses
