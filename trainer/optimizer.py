"""AdamW with warm-up, averaged weights, and clipping that does not depend on the devices."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from configs import BaseConfig, SequenceConfig


class ClippedAdamW(keras.optimizers.Adam):
    """AdamW that clips the gradient of the whole batch, and keeps averaged weights.

    Keras clips on each device, before gradients are added up, so that its `global_clipnorm` would
    clip the less the more devices there are. Here the sum is clipped.

    Keras's own averages cannot be assigned under MirroredStrategy, and weigh the start of training
    as much as its end for a decay of 0.999 and a thousand steps. Here the decay grows as
    tf.train.ExponentialMovingAverage has it, min(ema_decay, t / (9 + t)) at step t, so that one
    setting serves short and long runs.
    """

    def __init__(
        self, clip_norm: float, weight_decay: float = 0.0, ema_decay: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(weight_decay=weight_decay or None, use_ema=ema_decay > 0, **kwargs)
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay

    @property
    def averages(self) -> list[Any]:
        """The averaged weights, in the order of the trainable variables; [] without averaging."""
        return list(self._model_variables_moving_average) if self.use_ema else []

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[tuple[Any, Any]]:
        # Keras's own hook between adding up and applying; test_strategy.py fails if it goes.
        reduced = super()._all_reduce_sum_gradients(grads_and_vars)
        gradients, _ = tf.clip_by_global_norm([g for g, _ in reduced], self.clip_norm)
        return [(gradient, v) for gradient, (_, v) in zip(gradients, reduced, strict=True)]

    def _use_weight_decay(self, variable: Any) -> bool:
        # Kernels decay; biases and what scales and shifts normalized activations do not.
        return len(variable.shape) > 1

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        step = tf.cast(self.iterations.value, tf.float32)
        decay = tf.minimum(self.ema_decay, step / (9.0 + step))

        def move(average: Any, variable: Any, decay: Any) -> Any:
            return average.assign_sub((1.0 - decay) * (average - variable))

        def update(distribution: Any, decay: Any) -> None:
            for average, variable in zip(self.averages, trainable_variables, strict=True):
                distribution.extended.update(
                    average.value, move, args=(variable.value, decay), group=False
                )

        # As Keras applies gradients: variables of several devices are assigned to all at once.
        tf.__internal__.distribute.interim.maybe_merge_call(
            update, self._distribution_strategy, decay
        )


def make_optimizer(section: BaseConfig | SequenceConfig, num_steps: int) -> Any:
    """The optimizer that a config section describes.

    Args:
        section: `lr`, the largest learning rate; `lr_schedule` cosine (falls to zero at the end)
            or constant; `warmup_ratio`, `clip_norm`, `weight_decay`, `ema_decay`.
        num_steps: steps of the whole run.
    """
    warmup = round(section.warmup_ratio * num_steps)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else section.lr,
        decay_steps=max(num_steps - warmup, 1),
        alpha=0.0 if section.lr_schedule == "cosine" else 1.0,
        warmup_target=section.lr if warmup else None,
        warmup_steps=warmup,
    )
    return ClippedAdamW(
        section.clip_norm, section.weight_decay, section.ema_decay, learning_rate=rate
    )


@contextlib.contextmanager
def averaged_weights(model: Any) -> Iterator[None]:
    """Puts a model's averaged weights in place of its last ones while the block runs.

    Nothing changes without averaging, or before the first step.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if int(optimizer.iterations.numpy()) == 0 or not optimizer.averages:
        yield
        return
    # Copies: numpy() may be a view of a variable's memory, which the next assignment overwrites.
    last = [variable.numpy().copy() for variable in model.trainable_variables]
    for variable, average in zip(model.trainable_variables, optimizer.averages, strict=True):
        variable.assign(average.numpy().copy())
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, last, strict=True):
            variable.assign(value)
