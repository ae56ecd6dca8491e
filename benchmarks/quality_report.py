"""The report of the quality comparison: tables of lines, as Markdown. Pure functions."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.machine import Machine
from benchmarks.quality_lines import Line, Results, aggregate, follows, spread
from benchmarks.quality_rows import (
    CALIBRATION,
    PLAIN,
    PLAIN_SEQUENCE,
    ROWS,
    SHIPPED,
    SHIPPED_SEQUENCE,
    STAGES,
    Sizes,
    judge_seed,
)

# By seed: patients, slices and positive slices of train, validation and judge.
Sets = Mapping[int, Mapping[str, Mapping[str, int]]]
_SEQUENCE_GOAL, _CALIBRATION_GOAL = 0.80, 0.02
_HEAD = """\
# Results of `make quality`

{command}

Drawn phantoms say nothing about patients: that a setting helps here shows that it does what it is
meant to do, on pictures that were drawn by a program. No figure below is one of the real archive.

Machine: {hardware}
Versions: {versions}
Measured: {dates}; {minutes:.0f} minutes of one worker for all rows, sets and sequences not counted.

small_cnn at {image_size} px, {base_epochs} epochs; sequence models of one LSTM layer of 64 cells,
{sequence_epochs} epochs. For each seed two sets are drawn from different seeds, so no patient is in
both: models are trained, their epochs chosen and temperatures fitted on the first; all figures are
of the second. Loss is the challenge's weighted log loss. The ratio is to the loss of the reference
row of the same seed. Figures are mean and standard deviation over seeds. A row is better or worse
when all seeds agree and the mean ratio is more than 1% from 1. ECE is the expected calibration
error, 15 bins; AUC is of `any`.

"""
_TITLES = {
    "base": "Base model",
    "sequence": "Sequence model",
    "combined": "What helped alone, together",
    "folds": "Folds",
    "calibration": "Calibration",
}


def render(
    results: Results, sets: Sets, sizes: Sizes, machine: Machine, code: str, command: str
) -> str:
    """The whole report.

    Args:
        results: of all rows.
        sets: what was drawn.
        sizes: how much was asked for.
        machine: where it ran.
        code: fingerprint of the present code; rows of other code are named.
        command: what made it.
    """
    lines = aggregate(results)
    dates = sorted({result["date"] for result in results.values()})
    parts = [
        _HEAD.format(
            command=f"Made by `{command}`.",
            hardware=machine.hardware,
            versions=machine.versions,
            dates=" to ".join(dict.fromkeys((dates[0], dates[-1]))),
            minutes=sum(result["seconds"] for result in results.values()) / 60,
            **{k: getattr(sizes, k) for k in ("image_size", "base_epochs", "sequence_epochs")},
        ),
        "## Sets\n\n" + render_sets(sets),
        "\n## Goals\n\n" + render_goals(lines),
    ]
    default = next(result["config"] for result in results.values() if result["row"] == PLAIN)
    for stage in STAGES:
        found = [line for line in lines.values() if line.row.stage == stage]
        if found:
            render_stage = render_calibration if stage == CALIBRATION else render_lines
            table = render_stage(found, lines, default)
            parts.append(f"\n## {_TITLES[stage]}\n\n{table}")
    notes = render_notes(results, sizes, code)
    return "".join(parts) + (f"\n{notes}" if notes else "")


def render_sets(sets: Sets) -> str:
    """Patients, slices and positive slices of each seed's sets."""
    uses = ("train", "validation", "judge")
    cells = [
        [
            f"{seed}, judge {judge_seed(seed)}",
            *(
                f"{used[use]['patients']:,} / {used[use]['slices']:,} / {used[use]['positive']:,}"
                for use in uses
            ),
        ]
        for seed, used in sorted(sets.items())
    ]
    heads = [f"{use}: patients / slices / with hemorrhage" for use in uses]
    return render_table([["seed", *heads], *cells])


def render_lines(
    found: Iterable[Line], lines: Mapping[str, Line], default: Mapping[str, Any]
) -> str:
    """The table of a stage."""
    heads = ["row", "difference", "seeds", "loss", "reference", "ratio", "ECE any", "ECE mean"]
    cells = [[*heads, "AUC", "verdict", "default that follows"]]
    for line in found:
        figures = line.figures
        cells.append(
            [
                line.row.name,
                line.row.what,
                str(len(figures["loss"])),
                spread(figures["loss"]),
                line.row.reference or "",
                spread(line.ratios, 3),
                spread(figures["ece_any"]),
                spread(figures["ece_mean"]),
                spread(figures["auc_any"], 3),
                line.verdict,
                follows(line, default),
            ]
        )
    return render_table(cells)


def render_calibration(
    found: Iterable[Line], lines: Mapping[str, Line], default: Mapping[str, Any]
) -> str:
    """The table of figures before and after temperature scaling."""
    names = {"loss": "loss", "ece_any": "ECE any", "ece_mean": "ECE mean"}
    heads = [f"{title}, {when}" for title in names.values() for when in ("before", "after")]
    cells = [["row", "model", *heads, "ratio of losses", "verdict", "default that follows"]]
    for line in found:
        before = lines.get(line.row.reference or "")
        pairs = [
            spread(figures[name])
            for name in names
            for figures in (before.figures if before else {name: ()}, line.figures)
        ]
        judged = [spread(line.ratios, 3), line.verdict, follows(line, default)]
        cells.append([line.row.name, line.row.reference or "", *pairs, *judged])
    return render_table(cells)


def render_goals(lines: Mapping[str, Line]) -> str:
    """What the models should reach, and what they do: mean figures."""
    cells = [["goal", "measured", "met"]]
    for sequence, base in ((PLAIN_SEQUENCE, PLAIN), (SHIPPED_SEQUENCE, SHIPPED)):
        if sequence in lines:
            title = f"loss of {sequence} / {base} at most {_SEQUENCE_GOAL:.2f}"
            ratios = lines[sequence].ratios
            cells.append([title, spread(ratios, 3), _met(ratios, _SEQUENCE_GOAL, inclusive=True)])
    for name in (PLAIN, PLAIN_SEQUENCE, SHIPPED, SHIPPED_SEQUENCE):
        for figure, title in (("ece_any", "ECE of any"), ("ece_mean", "mean ECE")):
            if name in lines:
                values = lines[name].figures[figure]
                goal = f"{title}, {name}, below {_CALIBRATION_GOAL}"
                cells.append([goal, spread(values), _met(values, _CALIBRATION_GOAL)])
    return render_table(cells)


def _met(values: Sequence[float], bound: float, inclusive: bool = False) -> str:
    if not values:
        return "-"
    mean = statistics.fmean(values)
    return "yes" if mean < bound or (inclusive and mean == bound) else "no"


def render_notes(results: Results, sizes: Sizes, code: str) -> str:
    """What a reader of the tables must know of single rows."""
    rows = {name for name, _ in results}
    absent = [name for name in ROWS if name not in rows]
    older = sorted({name for (name, _), result in results.items() if result["code"] != code})
    notes = {
        "Not measured": absent,
        "Made by other code than the present": older,
    }
    return "".join(f"{title}: {', '.join(names)}.\n" for title, names in notes.items() if names)


def render_table(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads as text too; the first line has the titles."""
    for line in cells:
        for cell in line:
            if "|" in cell or "\n" in cell:
                raise ValueError(f"a cell must be one line without '|': {cell!r}")
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
