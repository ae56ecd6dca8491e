"""From results to lines: figures over seeds, ratios, verdicts. Pure functions of JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality_rows import ALL_ROWS, ROWS, Row, shown

# What `quality_models.make_row` wrote, by name of the row and seed.
Results = Mapping[tuple[str, int], Mapping[str, Any]]
BETTER, WORSE, SAME, TOO_FEW = "better", "worse", "no different", "one seed"
# A mean ratio nearer to 1 than this is no difference.
_LEAST_CHANGE = 0.01


@dataclass(frozen=True)
class Line:
    """A row's figures over the seeds.

    Attributes:
        row: the row.
        figures: by name, one number a seed.
        ratios: of the loss to the reference's, for the seeds where both are there.
    """

    row: Row
    figures: Mapping[str, tuple[float, ...]]
    ratios: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """What the ratios say."""
        return verdict(self.ratios) if self.row.reference else ""


def verdict(ratios: Sequence[float]) -> str:
    """Better, worse or no different: all seeds must agree, and the mean be 1% from 1."""
    if len(ratios) < 2:
        return TOO_FEW
    mean = statistics.fmean(ratios)
    if max(ratios) < 1 and mean < 1 - _LEAST_CHANGE:
        return BETTER
    if min(ratios) > 1 and mean > 1 + _LEAST_CHANGE:
        return WORSE
    return SAME


def aggregate(results: Results) -> dict[str, Line]:
    """The lines of all rows that have a result, in the order of the tables."""
    lines = {}
    for row in ALL_ROWS:
        found = {seed: result for (name, seed), result in results.items() if name == row.name}
        if not found:
            continue
        names = ("loss", "ece_any", "ece_mean", "auc_any")
        figures = {name: tuple(found[seed][name] for seed in sorted(found)) for name in names}
        ratios = tuple(
            found[seed]["loss"] / results[row.reference, seed]["loss"]
            for seed in sorted(found)
            if row.reference is not None and (row.reference, seed) in results
        )
        lines[row.name] = Line(row, figures, ratios)
    return lines


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and standard deviation, as `0.1234 ± 0.0010`; without the latter for one value."""
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def follows(line: Line, default: Mapping[str, Any]) -> str:
    """Which default a verdict justifies.

    Args:
        line: a row over its seeds.
        default: the default row's settings, by section and name.
    """
    row, found = line.row, line.verdict
    if found in ("", TOO_FEW) or not (row.changes or row.decides):
        return "-"
    if not row.changes:
        return f"{'with' if found == BETTER else 'without'} {row.decides}"
    settings = []
    reference = ROWS[row.reference].changes if row.reference else {}
    for name, value in row.changes.items():
        section, setting = name.split(".")
        # What is compared is what differs from the reference, which may differ from plain itself.
        old = shown(reference.get(name, default[section][setting]))
        if shown(value) == old:
            continue
        settings.append(f"{name} {shown(value)}, not {old}" if found == BETTER else f"{name} {old}")
    return "; ".join(settings) or "-"
