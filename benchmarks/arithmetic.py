"""Slopes and ratios of measurements."""

import math
from collections.abc import Iterable, Sequence


def slope(small: float, large: float, num_small: int, num_large: int) -> float:
    """What one unit more costs: start-up, which both runs have, falls out.

    Args:
        small: cost of the run with `num_small` units.
        large: cost of the run with `num_large` units.
        num_small: units of the smaller run.
        num_large: units of the larger run.

    Returns:
        (large - small) / (num_large - num_small); NaN where the larger run was not the dearer one,
        so that its cost is lost in the noise of the start-up.

    Raises:
        ValueError: `num_large` is not above `num_small`.
    """
    if num_large <= num_small:
        raise ValueError(f"no slope from {num_small} to {num_large} units")
    value = (large - small) / (num_large - num_small)
    return value if value > 0 else math.nan


def ratio(figure: float, reference: float) -> float:
    """`figure / reference`, NaN where either is lost in noise."""
    return figure / reference if reference else math.nan


def deviation(values: Sequence[float]) -> float:
    """The largest distance of a value from the first, as a share of the first."""
    return max(abs(value / values[0] - 1) for value in values[1:])


def best(values: Iterable[float]) -> float:
    """The smallest of repeated measurements: other work on a machine only ever adds to them."""
    return min(values)
