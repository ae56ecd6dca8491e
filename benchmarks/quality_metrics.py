"""Figures of one model on the judge set, and temperature scaling, in NumPy."""

import numpy as np

from beam_pipelines import schema
from trainer import metrics

NUM_BINS = 15
ANY = schema.SUBTYPES.index("any")
# Temperatures that are tried, as logarithms: 1/20 to 20.
_LOG_TEMPERATURES = (-3.0, 3.0)
_GOLDEN = (5**0.5 - 1) / 2
_STEPS = 60


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, num_bins: int = NUM_BINS
) -> float:
    """Mean distance of predicted to observed share of positives, over bins of equal width.

    Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602, for one label: each bin counts by
    the number of its slices.

    Args:
        labels: 0 or 1, of shape (num_slices,).
        probabilities: float, of the same shape.
        num_bins: bins of 0 to 1.
    """
    bins = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    surplus = np.bincount(bins, probabilities - labels, minlength=num_bins)
    return float(np.abs(surplus).sum() / len(labels))


def area_under_curve(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Chance that a positive slice is above a negative one; a tie counts half.

    Args:
        labels: 0 or 1, of shape (num_slices,).
        probabilities: float, of the same shape.

    Returns:
        The area under the ROC curve; nan where all labels are the same.
    """
    positives = int(labels.sum())
    pairs = positives * (len(labels) - positives)
    if not pairs:
        return float("nan")
    _, places, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mean_ranks[places][labels == 1].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / pairs)


def figures(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The figures of a row.

    Args:
        labels: 0 or 1, of shape (num_slices, 6), in the order of schema.SUBTYPES.
        logits: float of the same shape.
    """
    probabilities = metrics.sigmoid(logits)
    columns = zip(labels.T, probabilities.T, strict=True)
    errors = [expected_calibration_error(*column) for column in columns]
    return {
        "loss": metrics.weighted_log_loss(labels, probabilities),
        "ece_any": errors[ANY],
        "ece_mean": float(np.mean(errors)),
        "auc_any": area_under_curve(labels[:, ANY], probabilities[:, ANY]),
    }


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits of probabilities, finite for 0 and 1 too."""
    clipped = np.clip(np.asarray(probabilities, np.float64), metrics.EPSILON, 1 - metrics.EPSILON)
    return np.log(clipped) - np.log1p(-clipped)


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The number by which to divide all logits for the least weighted log loss.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. The loss has one minimum over temperatures;
    it is found by golden section, to one part in 10^11.

    Args:
        labels: 0 or 1, of shape (num_slices, 6).
        logits: float of the same shape.
    """

    def loss(log_temperature: float) -> float:
        scaled = metrics.sigmoid(logits / np.exp(log_temperature))
        return metrics.weighted_log_loss(labels, scaled)

    low, high = _LOG_TEMPERATURES
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
