"""The figures of one model on the judge set."""

import numpy as np

from beam_pipelines import schema
from trainer import calibration, metrics
from trainer.ranking import Ranking

ANY = schema.SUBTYPES.index("any")


def figures(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The figures of a row.

    Args:
        labels: 0 or 1, of shape (num_slices, 6), in the order of schema.SUBTYPES.
        logits: float of the same shape.

    Returns:
        `loss`, the weighted log loss; `ece_any` and `ece_mean`, the expected calibration error of
        `any` and its mean over subtypes; `auc_any`, the area under the ROC curve of `any`.
    """
    probabilities = metrics.sigmoid(logits)
    columns = zip(labels.T, probabilities.T, strict=True)
    errors = [calibration.expected_calibration_error(*column) for column in columns]
    all_alike = np.zeros(len(labels), np.intp)
    ranking = Ranking(labels[:, ANY], probabilities[:, ANY], all_alike)
    return {
        "loss": metrics.weighted_log_loss(labels, probabilities),
        "ece_any": errors[ANY],
        "ece_mean": float(np.mean(errors)),
        "auc_any": float(ranking.judge(np.ones(1, np.int64))[0]),
    }
