"""ROC AUC and average precision against their definitions over pairs and thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ranking import Ranking

# Label, score (few values, so that there are ties) and patient of a slice.
ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=30
)
WEIGHTS = st.lists(st.integers(0, 3), min_size=4, max_size=4)


def _repeated(
    rows: list[tuple[int, int, int]], weights: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with each slice there as often as its patient was drawn."""
    copies = [row[:2] for row in rows for _ in range(weights[row[2]])]
    drawn = np.array(copies, float).reshape(-1, 2)
    return drawn[:, 0], drawn[:, 1]


def _auc_of_pairs(labels: np.ndarray, scores: np.ndarray) -> float:
    positive, negative = scores[labels == 1][:, None], scores[labels == 0]
    if not positive.size or not negative.size:
        return np.nan
    return float(np.mean((positive > negative) + 0.5 * (positive == negative)))


def _average_precision_of_thresholds(labels: np.ndarray, scores: np.ndarray) -> float:
    if not labels.sum():
        return np.nan
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = labels[scores >= threshold]
        total += (chosen.sum() / labels.sum() - recall) * chosen.mean()
        recall = chosen.sum() / labels.sum()
    return total


@given(ROWS, WEIGHTS)
def test_weights_are_repetitions(rows: list[tuple[int, int, int]], weights: list[int]) -> None:
    labels, scores, patients = np.array(rows).T
    judged = Ranking(labels, scores / 5, patients).judge(np.array(weights))
    drawn = _repeated(rows, weights)
    expected = _auc_of_pairs(*drawn), _average_precision_of_thresholds(*drawn)
    assert judged == pytest.approx(expected, nan_ok=True)


@given(ROWS)
def test_nothing_changes_under_a_rising_function(rows: list[tuple[int, int, int]]) -> None:
    labels, scores, patients = np.array(rows).T
    ones = np.ones(4, int)
    auc, precision = Ranking(labels, scores, patients).judge(ones)
    rising = Ranking(labels, np.exp(scores), patients).judge(ones)
    assert (auc, precision) == pytest.approx(rising, nan_ok=True)
    # Of reversed scores, the rest of the pairs are in order.
    reversed_auc = Ranking(labels, -scores, patients).judge(ones)[0]
    assert 1 - auc == pytest.approx(reversed_auc, nan_ok=True)


def test_by_hand() -> None:
    # Pairs in order: 3 of (0.8, 0.3) against (0.6, 0.1); precision 1/1 and 2/3.
    ranking = Ranking(np.array([1, 0, 1, 0]), np.array([0.8, 0.6, 0.3, 0.1]), np.arange(4))
    assert ranking.judge(np.ones(4, int)) == pytest.approx((3 / 4, (1 + 2 / 3) / 2))
    # The best slice three times, the second never: all negatives are below.
    assert ranking.judge(np.array([3, 0, 1, 2])) == pytest.approx((1, 1))


def test_one_score_for_all_is_chance() -> None:
    labels = np.array([1, 0, 0, 0])
    judged = Ranking(labels, np.full(4, 0.3), np.arange(4)).judge(np.ones(4, int))
    assert judged == pytest.approx((0.5, 0.25))


def test_undefined_where_a_class_is_absent() -> None:
    weights = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    auc, precision = Ranking(np.array([1, 0]), np.array([0.9, 0.2]), np.arange(2)).judge_all(
        weights
    )
    assert auc == pytest.approx([1, np.nan, np.nan, np.nan], nan_ok=True)
    assert precision == pytest.approx([1, 1, np.nan, np.nan], nan_ok=True)
    nothing = np.empty(0)
    assert np.isnan(Ranking(nothing, nothing, nothing).judge(np.ones(2, int))).all()
