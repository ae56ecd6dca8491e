"""Training losses: binary cross-entropy from logits, averaged over real slices.

Labels are float32 of shape (batch, 6) or (batch, max_to_keep, 6), in the order of
`schema.SUBTYPES`; they are -1 where there is no slice (padding) or the slice has no labels.
Logits have the same shape. The mean is over all slices of the step, on all devices together:
sequences are of different lengths, and a mean of each device's mean would weigh a slice by the
company it keeps.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.metrics import SUBTYPE_WEIGHTS

Loss = Callable[[Any, Any], Any]


def bin_loss(labels: Any, logits: Any) -> Any:
    """Mean binary cross-entropy over slices and subtypes."""
    return _mean_over_slices(labels, tf.reduce_mean(_cross_entropy(labels, logits), -1))


def weighted_loss(labels: Any, logits: Any) -> Any:
    """The Kaggle metric: `any` weighs 2, the other subtypes 1, the sum is divided by 7."""
    weights = tf.constant(SUBTYPE_WEIGHTS, tf.float32)
    weighted = tf.reduce_sum(_cross_entropy(labels, logits) * weights, -1)
    return _mean_over_slices(labels, weighted / tf.reduce_sum(weights))


def masked_bin_loss(labels: Any, logits: Any) -> Any:
    """`bin_loss` over the real slices of padded sequences."""
    return bin_loss(labels, logits)


def masked_weighted_loss(labels: Any, logits: Any) -> Any:
    """`weighted_loss` over the real slices of padded sequences."""
    return weighted_loss(labels, logits)


LOSSES: dict[str, Loss] = {
    loss.__name__: loss for loss in (bin_loss, weighted_loss, masked_bin_loss, masked_weighted_loss)
}


def _cross_entropy(labels: Any, logits: Any) -> Any:
    # Finite for the labels -1 too, so that multiplying by the mask removes them.
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.maximum(labels, 0.0), logits)


def _mean_over_slices(labels: Any, slice_losses: Any) -> Any:
    real = tf.cast(labels[..., 0] >= 0, slice_losses.dtype)
    count = tf.reduce_sum(real)
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        # Each device gives its part of the mean: the optimizer adds up the devices' gradients.
        count = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return tf.reduce_sum(slice_losses * real) / tf.maximum(count, 1e-6)
