"""What both mains share: train with checkpoints, resume, judge each epoch, save."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from beam_pipelines import storage
from beam_pipelines.errors import require
from configs import BaseConfig, SequenceConfig
from trainer import calibration, metrics, model_files
from trainer import experiment as experiments
from trainer.experiment import Experiment
from trainer.input_pipeline import TrainingOrder
from trainer.judging import WEIGHTED_LOG_LOSS
from trainer.optimizer import averaged_weights

CHECKPOINTS_KEPT = 2
# The model that will be kept, while training goes on.
KEPT_MODEL = "kept.keras"


class Judge(Protocol):
    """Judges a model on the validation split; see `trainer.judging`."""

    def __call__(self, model: Any) -> dict[str, float]:
        """The validation losses by name."""

    def predict(self, model: Any) -> tuple[np.ndarray, np.ndarray]:
        """Labels and probabilities of the labelled slices, each of shape (num_slices, 6)."""


@dataclass(frozen=True)
class Rules:
    """When to stop, and what to keep.

    Attributes:
        patience: epochs without a better validation loss after which to stop; 0 for never.
        keep_best: keep the epoch with the best validation loss; the last one otherwise.
    """

    patience: int
    keep_best: bool

    @classmethod
    def of(cls, section: BaseConfig | SequenceConfig) -> "Rules":
        """What a config section asks for; who stops early keeps what was best."""
        return cls(section.patience, section.keep_best or section.patience > 0)


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
    """After each epoch: judges the model, keeps it if it is the best, notes it, saves the state."""

    def __init__(
        self, experiment: Experiment, progress: Progress, judge: Judge, rules: Rules
    ) -> None:
        super().__init__()
        self._experiment = experiment
        self._progress = progress
        self._judge = judge
        self._rules = rules
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds validation losses to `logs`, where TensorBoard and the progress bar find them."""
        logs = {} if logs is None else logs
        seconds = time.monotonic() - self._started
        # An epoch that is done again, because its checkpoint was lost, overwrites its line.
        before = [line for line in self._experiment.record()["history"] if line["epoch"] <= epoch]
        with averaged_weights(self.model):
            logs.update(self._judge(self.model))
            line = {"epoch": epoch + 1, "train_seconds": round(seconds, 3)}
            line.update({name: float(value) for name, value in logs.items()})
            history = [*before, line]
            if self._rules.keep_best and best_epoch(history) == epoch + 1:
                model_files.save_model(self.model, self._experiment.path(KEPT_MODEL))
        # The record before the checkpoint: a checkpoint without its line could not be judged.
        self._experiment.update(history=history)
        self._progress.save(epoch + 1)
        if stops_early(history, self._rules.patience):
            print(
                f"no better validation loss in {self._rules.patience} epochs: stopping after epoch "
                f"{epoch + 1}",
                flush=True,
            )
            self.model.stop_training = True


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The number, from 1 on, of the epoch with the lowest validation loss; the first such.

    An epoch whose loss is no number is worse than any other.
    """

    def loss(line: Mapping[str, float]) -> float:
        value = line[WEIGHTED_LOG_LOSS]
        return math.inf if math.isnan(value) else value

    return int(min(history, key=loss)["epoch"])


def stops_early(history: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether the last `patience` epochs, if that is not 0, were no better than one before."""
    if not patience or not history:
        return False
    return len(history) - best_epoch(history) >= patience


def train(
    model: Any,
    experiment: Experiment,
    make_dataset: Callable[[TrainingOrder], Any],
    order: TrainingOrder,
    num_records: int,
    judge: Judge,
    rules: Rules,
) -> None:
    """Trains a compiled model from its last checkpoint to the end, calibrates and saves it.

    The experiment's record then holds `validation`, the losses of the model that is kept, and
    `temperature`, which calibrates its probabilities; see `trainer.calibration`.

    Args:
        model: the compiled model, made under its strategy.
        experiment: where its state goes.
        make_dataset: makes the training batches from the order's first epoch on.
        order: the order, from epoch 0 on.
        num_records: train records in an epoch.
        judge: judges a model on validation.
        rules: when to stop, and which epoch's model to keep.

    Raises:
        UserError: training has diverged.
    """
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
        progress = Progress(model, experiment.path("checkpoints"))
    first_epoch = progress.restore()
    if first_epoch:
        print(f"resuming {experiment.folder} after epoch {first_epoch}", flush=True)
    done = [line for line in experiment.record()["history"] if line["epoch"] <= first_epoch]
    if first_epoch < order.num_epochs and not stops_early(done, rules.patience):
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
                EpochEnd(experiment, progress, judge, rules),
                keras.callbacks.TensorBoard(experiment.path("tensorboard"), write_graph=False),
            ],
        )
    kept = _kept_model(model, experiment, rules)
    labels, probabilities = judge.predict(kept)
    loss = metrics.weighted_log_loss(labels, probabilities)
    require(
        math.isfinite(loss),
        f"{experiment.folder}: the validation loss is no number: training has diverged; train "
        "again with a smaller lr and another --model_id",
    )
    model_files.save_model(kept, experiment.model_file)
    experiment.update(
        status=experiments.FINISHED,
        validation={WEIGHTED_LOG_LOSS: loss},
        temperature=calibration.fit_temperature(labels, probabilities),
    )
    storage.remove(experiment.path(KEPT_MODEL))


def _kept_model(model: Any, experiment: Experiment, rules: Rules) -> Any:
    if not rules.keep_best:
        with averaged_weights(model):
            model_files.save_model(model, experiment.path(KEPT_MODEL))
    # In the scope as the model was: elsewhere Keras would compile it with XLA on a GPU, unasked.
    with model.distribute_strategy.scope():
        return model_files.load_model(experiment.path(KEPT_MODEL))
