"""Bootstrap intervals over patients.

Slices of a patient resemble each other, so patients are drawn, with replacement, and bring all
their slices along. A draw is written as how often it holds each patient; a metric takes such
weights, and one of all ones gives the figure itself. All models are judged on the same draws, so
that differences between models are those of paired resamples. Intervals are percentiles: Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from dataclasses import dataclass

import numpy as np

# A figure that does not exist in more of the resamples (ROC AUC without a positive) rests on so few
# patients that the others' percentiles would say nothing.
MAX_UNDEFINED = 0.05


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: how many; 0 for no intervals.
        seed: of the draws.
        confidence: share of the resamples that an interval covers.
    """

    resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def weights(self, num_patients: int) -> np.ndarray:
        """How often each patient counts: once in the first row, then as drawn.

        Args:
            num_patients: how many patients there are, and are drawn.

        Returns:
            int64 of shape (1 + resamples, num_patients).
        """
        chances = np.full(num_patients, 1 / num_patients)
        drawn = np.random.default_rng(self.seed).multinomial(num_patients, chances, self.resamples)
        return np.concatenate([np.ones((1, num_patients), np.int64), drawn])

    def estimate(self, values: np.ndarray) -> dict[str, float | None]:
        """A figure with its interval.

        Args:
            values: of each row of `weights`, float of shape (1 + resamples,), NaN where undefined.

        Returns:
            `value`, and `low` and `high`, the interval's ends. Each is None where it is undefined:
            an interval without resamples, or where more than MAX_UNDEFINED of them are NaN.
        """
        value, drawn = float(values[0]), values[1:]
        defined = drawn[~np.isnan(drawn)]
        if np.isnan(value) or not len(drawn) or 1 - len(defined) / len(drawn) > MAX_UNDEFINED:
            return {"value": None if np.isnan(value) else value, "low": None, "high": None}
        tail = 50 * (1 - self.confidence)
        low, high = np.percentile(defined, [tail, 100 - tail])
        return {"value": value, "low": float(low), "high": float(high)}


def patient_sums(values: np.ndarray, patients: np.ndarray, num_patients: int) -> np.ndarray:
    """Sums of each patient's rows.

    Args:
        values: of shape (num_slices, num_columns).
        patients: index of each row's patient, of shape (num_slices,).
        num_patients: how many.

    Returns:
        float64 of shape (num_patients, num_columns).
    """
    columns = [np.bincount(patients, column, minlength=num_patients) for column in values.T]
    return np.stack(columns, axis=1)
