"""The training losses, against numbers worked out by hand and against the NumPy metric."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import losses, metrics

# sigmoid(log 3) = 0.75: a positive costs -log 0.75, a negative -log 0.25.
LOGIT = math.log(3.0)
HIT, MISS = -math.log(0.75), -math.log(0.25)


def _value(loss: losses.Loss, labels: object, logits: object) -> float:
    return float(loss(tf.constant(labels, tf.float32), tf.constant(logits, tf.float32)))


def test_bin_loss_by_hand() -> None:
    labels = [[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]]
    expected = (2 * HIT + 10 * MISS) / 12
    assert _value(losses.bin_loss, labels, np.full((2, 6), LOGIT)) == pytest.approx(expected)


def test_weighted_loss_counts_any_twice() -> None:
    labels = [[0, 0, 0, 0, 0, 1]]
    expected = (2 * HIT + 5 * MISS) / 7
    assert _value(losses.weighted_loss, labels, np.full((1, 6), LOGIT)) == pytest.approx(expected)


def test_weighted_loss_is_the_metric() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((50, 6)) < 0.3).astype(np.float32)
    logits = rng.normal(0, 3, (50, 6)).astype(np.float32)
    expected = metrics.weighted_log_loss(labels, metrics.sigmoid(logits))
    assert _value(losses.weighted_loss, labels, logits) == pytest.approx(expected, rel=1e-5)


def test_masked_bin_loss_by_hand() -> None:
    # Two real slices, one of them a miss in one subtype, and one of padding.
    labels = np.zeros((1, 3, 6))
    labels[0, 2] = -1
    logits = np.full((1, 3, 6), -LOGIT)
    labels[0, 1, 0] = 1
    expected = (11 * HIT + MISS) / 12
    assert _value(losses.masked_bin_loss, labels, logits) == pytest.approx(expected)
    expected = (13 * HIT + MISS) / 14
    assert _value(losses.masked_weighted_loss, labels, logits) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["bin_loss", "weighted_loss"])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_oversampling_leaves_the_expected_loss(name: str, share: float) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((400, 6)) < 0.05).astype(np.float32)
    labels[:, -1] = labels[:, :-1].max(axis=1)
    logits = rng.normal(0, 2, (400, 6)).astype(np.float32)
    positive = labels[:, -1] == 1
    loss = losses.oversampled(name, share, float(positive.mean()))
    # What training sees on average: positives as a share of the draws, negatives as the rest.
    seen = share * _value(loss, labels[positive], logits[positive])
    seen += (1 - share) * _value(loss, labels[~positive], logits[~positive])
    assert seen == pytest.approx(_value(losses.LOSSES[name], labels, logits), rel=1e-5)


def test_without_oversampling_the_loss_is_the_plain_one() -> None:
    assert losses.oversampled("weighted_loss", 0.0, 0.1) is losses.weighted_loss


def test_all_padding_is_zero_and_finite_gradients_remain() -> None:
    logits = tf.Variable(tf.fill([2, 4, 6], 1e4))
    with tf.GradientTape() as tape:
        loss = losses.masked_bin_loss(tf.fill([2, 4, 6], -1.0), logits)
    assert float(loss) == 0
    assert np.all(tape.gradient(loss, logits).numpy() == 0)


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), extra=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_padding_does_not_change_the_loss(lengths: list[int], extra: int) -> None:
    rng = np.random.default_rng(sum(lengths) + extra)
    width = max(lengths) + extra
    labels = np.full((len(lengths), width, 6), -1.0)
    logits = rng.normal(0, 50, labels.shape)
    real = np.arange(width) < np.array(lengths)[:, np.newaxis]
    labels[real] = rng.random((sum(lengths), 6)) < 0.3
    for masked, plain in (
        (losses.masked_bin_loss, losses.bin_loss),
        (losses.masked_weighted_loss, losses.weighted_loss),
    ):
        expected = _value(plain, labels[real], logits[real])
        assert _value(masked, labels, logits) == pytest.approx(expected, rel=1e-5)
