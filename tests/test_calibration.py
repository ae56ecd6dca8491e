"""Calibration error by hand, and temperatures that are known beforehand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import calibration, metrics

PROBABILITY = st.floats(0, 1)


def _ones(probabilities: list[float]) -> np.ndarray:
    """The same probability for all six subtypes."""
    return np.repeat(np.array(probabilities)[:, None], 6, axis=1)


def test_expected_calibration_error_by_hand() -> None:
    # Bins 0 (two slices: mean 0.03, rate 1/2), 7 (0.5 against 0) and 14 (0.96 and 1.0 against 1).
    probabilities = np.array([0.01, 0.05, 0.5, 0.96, 1.0])
    labels = np.array([0, 1, 0, 1, 1])
    expected = (2 * abs(0.03 - 0.5) + 0.5 + 2 * abs(0.98 - 1)) / 5
    assert calibration.expected_calibration_error(labels, probabilities) == pytest.approx(expected)
    bins = calibration.reliability(labels, probabilities)
    assert bins.count[[0, 7, 14]].tolist() == [2, 1, 2]
    assert bins.count.sum() == 5
    assert bins.mean_probability[[0, 7, 14]] == pytest.approx([0.03, 0.5, 0.98])
    assert bins.positive_rate[[0, 7, 14]].tolist() == [0.5, 0, 1]
    assert np.isnan(bins.mean_probability[1]) and np.isnan(bins.positive_rate[1])


@given(PROBABILITY)
def test_each_probability_is_in_its_bin(probability: float) -> None:
    found = int(calibration.bin_of(np.array([probability]))[0])
    assert calibration.BIN_EDGES[found] <= probability
    assert probability < calibration.BIN_EDGES[found + 1] or (found, probability) == (14, 1)


def test_edges_belong_to_the_bin_above() -> None:
    found = calibration.bin_of(calibration.BIN_EDGES)
    assert found.tolist() == [*range(15), 14]
    assert calibration.bin_of(np.nextafter(calibration.BIN_EDGES[1:], 0)).tolist() == [*range(15)]


@given(st.lists(st.tuples(st.integers(0, 1), PROBABILITY), min_size=1, max_size=20))
def test_gaps_of_patients_add_up_to_the_error(rows: list[tuple[int, float]]) -> None:
    labels, probabilities = np.array(rows).T
    patients = np.arange(len(labels)) % 3
    gaps = calibration.calibration_gaps(labels, probabilities, patients, 3)
    assert gaps.shape == (3, 15)
    bins = calibration.reliability(labels, probabilities)
    distances = np.abs(bins.mean_probability - bins.positive_rate)
    expected = np.nansum(bins.count * distances) / len(labels)
    assert np.abs(gaps.sum(0)).sum() / len(labels) == pytest.approx(expected, abs=1e-12)
    found = calibration.expected_calibration_error(labels, probabilities)
    assert found == pytest.approx(expected, abs=1e-12)


def test_temper_by_hand() -> None:
    # Odds of 9 to the power of 1/2 are 3, to the power of 2 they are 81.
    assert calibration.temper(np.array([0.9, 0.1]), 2) == pytest.approx([0.75, 0.25])
    assert calibration.temper(np.array([0.9]), 0.5) == pytest.approx([81 / 82])


@given(st.floats(1e-9, 1 - 1e-9), st.floats(0.05, 20), st.floats(0.05, 20))
def test_temper_undoes_itself(probability: float, first: float, second: float) -> None:
    values = np.array([probability])
    assert calibration.temper(values, 1) == pytest.approx(values, rel=1e-6)
    if 0.5 < first < 20:  # below, probabilities run into their bounds
        back = calibration.temper(calibration.temper(values, first), 1 / first)
        assert back == pytest.approx(values, rel=1e-5)
    ordered = calibration.temper(np.array([probability / 2, probability]), second)
    assert ordered[0] <= ordered[1]


def test_temper_takes_certainty() -> None:
    tempered = calibration.temper(np.array([0.0, 1.0]), 20)
    odds = 1e-15 ** (1 / 20)
    assert tempered == pytest.approx([odds / (1 + odds), 1 / (1 + odds)], rel=1e-3)


@pytest.mark.parametrize("temperature", [0.55, 0.8, 1.0, 2.5])
def test_the_temperature_of_distorted_probabilities_is_found(temperature: float) -> None:
    # Of 20 slices a share that equals the true probability is positive.
    rate = np.array([0.1, 0.3, 0.45, 0.8])
    labels = np.concatenate([np.arange(20) < 20 * value for value in rate]).astype(float)
    true = _ones(np.repeat(rate, 20).tolist())
    distorted = calibration.temper(true, 1 / temperature)
    found = calibration.fit_temperature(_ones(labels.tolist()), distorted)
    assert found == pytest.approx(temperature, rel=1e-5)


@given(st.lists(st.tuples(st.integers(0, 1), PROBABILITY), min_size=1, max_size=20))
def test_no_other_temperature_has_a_smaller_loss(rows: list[tuple[int, float]]) -> None:
    labels, probabilities = (_ones(list(column)) for column in zip(*rows, strict=True))
    found = calibration.fit_temperature(labels, probabilities)
    assert calibration.MIN_TEMPERATURE <= found <= calibration.MAX_TEMPERATURE
    if len(np.unique(labels)) == 1:
        assert found == 1
        return

    def loss(temperature: float) -> float:
        return metrics.weighted_log_loss(labels, calibration.temper(probabilities, temperature))

    others = np.geomspace(calibration.MIN_TEMPERATURE, calibration.MAX_TEMPERATURE, 60)
    assert loss(found) <= min(map(loss, others)) + 1e-9


def test_any_counts_twice() -> None:
    # `any` wants a high temperature, `epidural` a low one; the others do not care.
    labels = np.zeros((4, 6))
    labels[:, -1] = [1, 0, 0, 1]
    probabilities = np.full((4, 6), 0.5)
    probabilities[:, -1] = [0.9, 0.9, 0.1, 0.3]
    probabilities[:, 0] = 0.2
    logits = np.log(probabilities / (1 - probabilities))
    found = calibration.fit_temperature(labels, probabilities)
    errors = (metrics.sigmoid(logits / found) - labels) * logits
    assert 2 * errors[:, -1].sum() + errors[:, 0].sum() == pytest.approx(0, abs=1e-6)


def test_temperatures_without_a_minimum_are_bounded() -> None:
    right, wrong = _ones([0.1, 0.8]), _ones([0.9, 0.2])
    labels = _ones([0, 1])
    assert calibration.fit_temperature(labels, right) == calibration.MIN_TEMPERATURE
    assert calibration.fit_temperature(labels, wrong) == calibration.MAX_TEMPERATURE
    # Labels that are all the same do not say how sure to be.
    assert calibration.fit_temperature(np.zeros((2, 6)), right) == 1
    assert calibration.fit_temperature(np.ones((2, 6)), right) == 1
    assert calibration.fit_temperature(labels, np.full((2, 6), 0.5)) == 1
    assert calibration.fit_temperature(np.empty((0, 6)), np.empty((0, 6))) == 1
    certain = np.array([[0.0], [1.0]]) * np.ones(6)
    assert calibration.fit_temperature(certain, certain) == calibration.MIN_TEMPERATURE
    assert calibration.fit_temperature(1 - certain, certain) == calibration.MAX_TEMPERATURE


def test_halves_are_stable_even_and_whole() -> None:
    patients = [f"p{number}" for number in range(7) for _ in range(3)]
    half = calibration.halves(patients)
    by_patient = dict(zip(patients, half, strict=True))
    assert [by_patient[patient] for patient in patients] == half.tolist()
    assert sorted(by_patient.values()) == [0, 0, 0, 1, 1, 1, 1]
    assert calibration.halves(patients[::-1]).tolist() == half[::-1].tolist()
    # What the hash says of them; another version must not divide them otherwise.
    assert half[::3].tolist() == [0, 1, 1, 1, 0, 1, 0]


def test_each_half_has_the_temperature_of_the_other() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((40, 6))
    half = np.arange(40) % 2
    labels = (rng.random((40, 6)) < calibration.temper(probabilities, 2)).astype(int)
    tempered, used = calibration.temper_across(labels, probabilities, half)
    for number in (0, 1):
        other = half != number
        expected = calibration.fit_temperature(labels[other], probabilities[other])
        assert used[number] == expected
        rows = calibration.temper(probabilities[~other], expected)
        assert np.array_equal(tempered[~other], rows)
    assert used[0] != used[1]
    # A slice's own label has no part in its probability.
    changed = labels.copy()
    changed[half == 0] = 1 - changed[half == 0]
    again, _ = calibration.temper_across(changed, probabilities, half)
    assert np.array_equal(again[half == 0], tempered[half == 0])
    assert not np.array_equal(again[half == 1], tempered[half == 1])


def test_logits_of_certain_probabilities_are_finite() -> None:
    probabilities = np.array([0.0, 0.25, 1.0])
    logits = calibration.to_logits(probabilities)
    assert np.isfinite(logits).all()
    assert metrics.sigmoid(logits) == pytest.approx(probabilities, abs=1e-14)
