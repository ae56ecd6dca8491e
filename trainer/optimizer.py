"""Adam with gradient clipping that does not depend on the number of devices."""

from typing import Any

import keras
import tensorflow as tf


class ClippedAdam(keras.optimizers.Adam):
    """Adam that clips the gradient of the whole batch.

    Keras clips on each device, before gradients are added up, so that its `global_clipnorm` would
    clip the less the more devices there are. Here the sum is clipped.
    """

    def __init__(self, clip_norm: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clip_norm = clip_norm

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[tuple[Any, Any]]:
        # Keras's own hook between adding up and applying; test_strategy.py fails if it goes.
        reduced = super()._all_reduce_sum_gradients(grads_and_vars)
        gradients, _ = tf.clip_by_global_norm([g for g, _ in reduced], self.clip_norm)
        return [(gradient, v) for gradient, (_, v) in zip(gradients, reduced, strict=True)]


def make_optimizer(lr: float, lr_schedule: str, clip_norm: float, num_steps: int) -> Any:
    """Adam as a config section says.

    Args:
        lr: learning rate at the start.
        lr_schedule: `cosine` falls to zero over `num_steps`; `constant` stays.
        clip_norm: global norm that gradients are clipped to.
        num_steps: steps of the whole run.
    """
    rate: Any = lr
    if lr_schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(lr, max(num_steps, 1))
    return ClippedAdam(clip_norm, learning_rate=rate)
