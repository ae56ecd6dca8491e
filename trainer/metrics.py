"""The metric of the RSNA 2019 challenge, in NumPy."""

from collections.abc import Sequence

import numpy as np

from beam_pipelines import schema

# In the order of schema.SUBTYPES: `any` counts twice.
SUBTYPE_WEIGHTS = tuple(2.0 if name == "any" else 1.0 for name in schema.SUBTYPES)
# Kaggle clips probabilities so far from 0 and 1 (scikit-learn's log_loss of that time).
EPSILON = 1e-15


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, float64, without overflow."""
    wide = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1 / (1 + small), small / (1 + small))


def clip(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities kept EPSILON away from 0 and 1, float64 of the same shape."""
    return np.clip(np.asarray(probabilities, np.float64), EPSILON, 1 - EPSILON)


def slice_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The log loss of each label.

    Args:
        labels: 0 or 1, of shape (num_slices, 6).
        probabilities: float of the same shape.

    Returns:
        float64 of the same shape.
    """
    clipped = clip(probabilities)
    return -np.where(np.asarray(labels) > 0.5, np.log(clipped), np.log1p(-clipped))


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Mean log loss of each subtype.

    Args:
        labels: 0 or 1, of shape (num_slices, 6), in the order of schema.SUBTYPES.
        probabilities: float of the same shape.

    Returns:
        The log loss by subtype.
    """
    losses = slice_losses(labels, probabilities)
    return {name: float(v) for name, v in zip(schema.SUBTYPES, losses.mean(0), strict=True)}


def weighted_log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The challenge's metric: `any` counts 2, the others 1, divided by 7. Arguments as above."""
    losses = log_losses(labels, probabilities)
    return float(np.average([losses[name] for name in schema.SUBTYPES], weights=SUBTYPE_WEIGHTS))


def mean_by_image(image_ids: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    """Averages what overlapping windows say of the same slice.

    Args:
        image_ids: one id a row; an id may come several times.
        values: of shape (num_rows, 6): probabilities, or labels.

    Returns:
        The mean, of shape (6,), by image id, in the order in which ids come first.
    """
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for image_id, row in zip(image_ids, np.asarray(values, np.float64), strict=True):
        sums[image_id] = sums[image_id] + row if image_id in sums else row
        counts[image_id] = counts.get(image_id, 0) + 1
    return {image_id: total / counts[image_id] for image_id, total in sums.items()}
