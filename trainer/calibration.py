"""How far probabilities can be taken at their word, and temperature scaling, which mends them.

Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017,
https://arxiv.org/abs/1706.04599: expected calibration error (section 3), temperature scaling
(section 4.2). There a network has one softmax; here each subtype has its own sigmoid, and all six
share one temperature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beam_pipelines.splits import uniform
from trainer import metrics
from trainer.metrics import SUBTYPE_WEIGHTS

NUM_BINS = 15
BIN_EDGES = np.arange(NUM_BINS + 1) / NUM_BINS
# Models in use are within these bounds. A few patients, all on the right side of a half, would ask
# for no doubt at all.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.5, 3.0
# Halvings of log T: of log(6) = 1.8 they leave 4e-10.
_BISECTIONS = 32


@dataclass(frozen=True)
class Reliability:
    """Probabilities of one subtype against what came true, by bin.

    Attributes:
        count: slices in each bin, int of shape (15,).
        mean_probability: of shape (15,), NaN in an empty bin.
        positive_rate: share of positives, of shape (15,), NaN in an empty bin.
    """

    count: np.ndarray
    mean_probability: np.ndarray
    positive_rate: np.ndarray


def bin_of(probabilities: np.ndarray) -> np.ndarray:
    """The bin, 0 to 14, of each probability: BIN_EDGES[bin] <= p < BIN_EDGES[bin + 1].

    The last bin holds 1 too.
    """
    return np.clip(np.searchsorted(BIN_EDGES, probabilities, side="right") - 1, 0, NUM_BINS - 1)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Bins the probabilities of one subtype.

    Args:
        labels: 0 or 1, of shape (num_slices,).
        probabilities: of shape (num_slices,).
    """
    bins = bin_of(probabilities)
    count = np.bincount(bins, minlength=NUM_BINS)
    with np.errstate(invalid="ignore"):
        mean_probability = np.bincount(bins, probabilities, minlength=NUM_BINS) / count
        positive_rate = np.bincount(bins, labels, minlength=NUM_BINS) / count
    return Reliability(count, mean_probability, positive_rate)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over slices of |mean probability - share of positives| of the slice's bin.

    15 bins of equal width over [0, 1] (Guo et al. 2017, equation 3, where confidence and accuracy
    of a class stand for probability and share of positives).

    Args:
        labels: 0 or 1, of shape (num_slices,), at least one.
        probabilities: of shape (num_slices,).
    """
    patients = np.zeros(len(labels), np.intp)
    return float(np.abs(calibration_gaps(labels, probabilities, patients, 1)).sum() / len(labels))


def calibration_gaps(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, num_patients: int
) -> np.ndarray:
    """What each patient adds to each bin of the expected calibration error.

    Args:
        labels: 0 or 1, of shape (num_slices,).
        probabilities: of shape (num_slices,).
        patients: index of each slice's patient, of shape (num_slices,).
        num_patients: how many.

    Returns:
        Sums of probability minus label, float64 of shape (num_patients, 15). The error is the sum
        over bins of |sum over patients|, divided by the number of slices.
    """
    cells = patients * NUM_BINS + bin_of(probabilities)
    gaps = np.bincount(cells, probabilities - labels, minlength=num_patients * NUM_BINS)
    return gaps.reshape(num_patients, NUM_BINS)


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits of any shape, finite: 0 and 1 are taken for 1e-15 and 1 - 1e-15."""
    clipped = metrics.clip(probabilities)
    return np.log(clipped) - np.log1p(-clipped)


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """sigmoid(logit(p) / T): above 1 a temperature moves probabilities to a half, below 1 away.

    Args:
        probabilities: any shape; 0 and 1 are taken for 1e-15 and 1 - 1e-15.
        temperature: above 0.

    Returns:
        float64 of the same shape.
    """
    return metrics.sigmoid(to_logits(probabilities) / temperature)


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature, one for all subtypes, with the smallest weighted log loss.

    The loss is convex in s = 1/T, with the derivative mean w (sigmoid(s z) - y) z for logits z, so
    bisection on the derivative's sign finds the minimum. Where all labels are on the right side of
    a half there is none, and T is MIN_TEMPERATURE; where logits are no better than chance it is
    MAX_TEMPERATURE.

    Args:
        labels: 0 or 1, of shape (num_slices, 6).
        probabilities: of the same shape.

    Returns:
        The temperature; 1 where it makes no difference, without slices or with probabilities of
        one half alone, and where all labels are the same, which say nothing of how sure to be.
    """
    logits, wanted = to_logits(probabilities), np.asarray(labels, np.float64)
    weighted = logits * np.array(SUBTYPE_WEIGHTS)
    if not np.any(logits) or wanted.min() == wanted.max():
        return 1.0

    def falls(log_temperature: float) -> bool:
        """Whether the loss falls with a rising temperature."""
        errors = metrics.sigmoid(logits * np.exp(-log_temperature)) - wanted
        return float(np.sum(weighted * errors)) > 0

    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    if falls(high):
        return MAX_TEMPERATURE
    if not falls(low):
        return MIN_TEMPERATURE
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) else (low, middle)
    return float(np.exp((low + high) / 2))


def halves(patient_ids: Sequence[str]) -> np.ndarray:
    """Divides patients in two halves of the same size or one apart, by a stable hash.

    Args:
        patient_ids: one a slice.

    Returns:
        0 or 1 a slice, int of shape (num_slices,).
    """
    ordered = sorted(set(patient_ids), key=lambda patient: uniform("calibration", patient))
    second = set(ordered[len(ordered) // 2 :])
    return np.array([int(patient in second) for patient in patient_ids])


def temper_across(
    labels: np.ndarray, probabilities: np.ndarray, half: np.ndarray
) -> tuple[np.ndarray, tuple[float, float]]:
    """Tempers each half of the patients with the temperature that the other half fits best.

    So no slice is judged under a temperature that its own label had a part in.

    Args:
        labels: 0 or 1, of shape (num_slices, 6).
        probabilities: of the same shape.
        half: 0 or 1, of shape (num_slices,); see `halves`.

    Returns:
        The tempered probabilities, and the temperature used for half 0 and for half 1.
    """
    tempered = np.array(probabilities, np.float64)
    used = []
    for number in (0, 1):
        other = half != number
        temperature = fit_temperature(labels[other], probabilities[other])
        tempered[~other] = temper(probabilities[~other], temperature)
        used.append(temperature)
    return tempered, (used[0], used[1])
