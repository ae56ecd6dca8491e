"""Slopes and ratios of measurements."""

import math
from collections.abc import Iterable, Sequence


def slope(costs: Sequence[float], counts: Sequence[int]) -> float:
    """What one unit more costs: start-up, which both runs have, falls out.

    Args:
        costs: of a small and of a large run.
        counts: units of each.

    Returns:
        The difference of the costs over the difference of the counts; NaN where the larger run was
        not the dearer one, so that its cost is lost in the noise of the start-up.

    Raises:
        ValueError: the second count is not above the first.
    """
    (small, large), (num_small, num_large) = costs, counts
    if num_large <= num_small:
        raise ValueError(f"no slope from {num_small} to {num_large} units")
    value = (large - small) / (num_large - num_small)
    return value if value > 0 else math.nan


def ratio(figure: float, reference: float) -> float:
    """`figure / reference`, NaN where either is lost in noise."""
    return figure / reference if reference else math.nan


def best(values: Iterable[float]) -> float:
    """The smallest of repeated measurements: other work on a machine only ever adds to them."""
    return min(values)
