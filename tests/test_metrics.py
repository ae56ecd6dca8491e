"""The challenge's metric, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines import schema
from trainer import metrics


def test_weighted_log_loss_by_hand() -> None:
    labels = np.array([[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    probabilities = np.array([[0.8, 0.5, 0.5, 0.5, 0.5, 0.9], [0.1, 0.5, 0.5, 0.5, 0.5, 0.2]])
    losses = metrics.log_losses(labels, probabilities)
    assert losses["epidural"] == pytest.approx(-(math.log(0.8) + math.log(0.9)) / 2)
    assert losses["subdural"] == pytest.approx(math.log(2))
    assert losses["any"] == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    expected = (losses["epidural"] + 4 * math.log(2) + 2 * losses["any"]) / 7
    assert metrics.weighted_log_loss(labels, probabilities) == pytest.approx(expected)


def test_probabilities_are_clipped_as_kaggle_does() -> None:
    labels = np.ones((1, 6))
    assert metrics.weighted_log_loss(labels, np.zeros((1, 6))) == pytest.approx(15 * math.log(10))
    assert metrics.weighted_log_loss(labels, np.ones((1, 6))) == pytest.approx(0, abs=1e-12)


def test_weights_follow_the_schema() -> None:
    weights = dict(zip(schema.SUBTYPES, metrics.SUBTYPE_WEIGHTS, strict=True))
    assert weights.pop("any") == 2
    assert set(weights.values()) == {1}


@given(st.floats(-800, 800))
def test_sigmoid_does_not_overflow(logit: float) -> None:
    with np.errstate(over="raise"):
        value = metrics.sigmoid(np.array([logit, -logit], np.float32))
    assert value.sum() == pytest.approx(1)
    assert np.all((value >= 0) & (value <= 1))


def test_mean_by_image_averages_repeats_and_keeps_order() -> None:
    means = metrics.mean_by_image(["b", "a", "b"], np.array([[1.0], [2.0], [4.0]]))
    assert list(means) == ["b", "a"]
    assert means["b"].tolist() == [2.5]
    assert means["a"].tolist() == [2.0]
