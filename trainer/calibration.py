"""Temperature scaling of probabilities.

Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017, section 4.2,
https://arxiv.org/abs/1706.04599; here each subtype has its own sigmoid, and all share T.
"""

import numpy as np

from trainer import metrics


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """sigmoid(logit(p) / T): above 1 a temperature moves probabilities to a half, below 1 away.

    Args:
        probabilities: any shape; 0 and 1 are taken for 1e-15 and 1 - 1e-15.
        temperature: above 0.

    Returns:
        float64 of the same shape.
    """
    clipped = np.clip(np.asarray(probabilities, np.float64), metrics.EPSILON, 1 - metrics.EPSILON)
    return metrics.sigmoid((np.log(clipped) - np.log1p(-clipped)) / temperature)
