"""Intervals over patients."""

import numpy as np
import pytest

from trainer.bootstrap import Bootstrap, patient_sums


def test_weights_are_draws_of_patients() -> None:
    weights = Bootstrap(resamples=50, seed=3).weights(12)
    assert weights.shape == (51, 12)
    assert weights.dtype == np.int64
    assert weights[0].tolist() == [1] * 12
    assert weights.sum(1).tolist() == [12] * 51
    assert weights.min() == 0
    assert weights.max() > 1
    assert len(np.unique(weights, axis=0)) > 45
    assert np.array_equal(weights, Bootstrap(resamples=50, seed=3).weights(12))
    assert not np.array_equal(weights, Bootstrap(resamples=50, seed=4).weights(12))
    assert Bootstrap(resamples=0).weights(3).tolist() == [[1, 1, 1]]


def test_an_interval_holds_the_middle_of_the_resamples() -> None:
    values = np.concatenate([[7.0], np.arange(101)])
    expected = {"value": 7, "low": 2.5, "high": 97.5}
    assert Bootstrap().estimate(values) == pytest.approx(expected)
    expected = {"value": 7, "low": 25, "high": 75}
    assert Bootstrap(confidence=0.5).estimate(values) == pytest.approx(expected)


def test_an_interval_of_a_mean_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    bootstrap = Bootstrap(resamples=2000)
    weights = bootstrap.weights(400)
    found = bootstrap.estimate(weights @ values / 400)
    assert found["value"] == pytest.approx(values.mean())
    error = values.std() / 20
    assert found["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_undefined_figures_are_none() -> None:
    nothing = {"value": None, "low": None, "high": None}
    assert Bootstrap().estimate(np.array([np.nan, 1, 2])) == nothing
    assert Bootstrap().estimate(np.array([5.0])) == {"value": 5, "low": None, "high": None}
    drawn = np.arange(101.0)
    drawn[[3, 60]] = np.nan
    few = Bootstrap().estimate(np.concatenate([[5], drawn]))
    assert few["low"] == pytest.approx(np.percentile(drawn[~np.isnan(drawn)], 2.5))
    drawn[:10] = np.nan
    many = Bootstrap().estimate(np.concatenate([[5], drawn]))
    assert many == {"value": 5, "low": None, "high": None}


def test_patient_sums_by_hand() -> None:
    values = np.array([[1.0, 10], [2, 20], [3, 30]])
    sums = patient_sums(values, np.array([2, 0, 2]), 4)
    assert sums.tolist() == [[2, 20], [0, 0], [4, 40], [0, 0]]
