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

from beam_pipelines import schema
from trainer.metrics import SUBTYPE_WEIGHTS

Loss = Callable[[Any, Any], Any]
_ANY = schema.SUBTYPES.index("any")


def bin_loss(labels: Any, logits: Any) -> Any:
    """Mean binary cross-entropy over slices and subtypes."""
    return _mean_over_slices(labels, _mean_over_subtypes(labels, logits))


def weighted_loss(labels: Any, logits: Any) -> Any:
    """The Kaggle metric: `any` weighs 2, the other subtypes 1, the sum is divided by 7."""
    return _mean_over_slices(labels, _weighted_mean_over_subtypes(labels, logits))


def masked_bin_loss(labels: Any, logits: Any) -> Any:
    """`bin_loss` over the real slices of padded sequences."""
    return bin_loss(labels, logits)


def masked_weighted_loss(labels: Any, logits: Any) -> Any:
    """`weighted_loss` over the real slices of padded sequences."""
    return weighted_loss(labels, logits)


LOSSES: dict[str, Loss] = {
    loss.__name__: loss for loss in (bin_loss, weighted_loss, masked_bin_loss, masked_weighted_loss)
}


def oversampled(name: str, positive_share: float, prior: float) -> Loss:
    """The loss of slices of which more are positive for `any` than in the train split.

    Each slice is weighed by how much rarer it was made, so that the expected loss, and with it
    the probabilities, are those of the train split as it is (importance sampling).

    Args:
        name: bin_loss or weighted_loss.
        positive_share: share of positive slices in training; 0 where it is the train split's.
        prior: their share in the train split.
    """
    if not positive_share:
        return LOSSES[name]
    by_slice = {"bin_loss": _mean_over_subtypes, "weighted_loss": _weighted_mean_over_subtypes}[
        name
    ]
    weight_positive = prior / positive_share
    weight_negative = (1.0 - prior) / (1.0 - positive_share)

    def loss(labels: Any, logits: Any) -> Any:
        weights = tf.where(labels[..., _ANY] > 0.5, weight_positive, weight_negative)
        return _mean_over_slices(labels, weights * by_slice(labels, logits))

    return loss


def _mean_over_subtypes(labels: Any, logits: Any) -> Any:
    return tf.reduce_mean(_cross_entropy(labels, logits), -1)


def _weighted_mean_over_subtypes(labels: Any, logits: Any) -> Any:
    weights = tf.constant(SUBTYPE_WEIGHTS, tf.float32)
    return tf.reduce_sum(_cross_entropy(labels, logits) * weights, -1) / tf.reduce_sum(weights)


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
