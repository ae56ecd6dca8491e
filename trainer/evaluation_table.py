"""An evaluation report as a table for people, at most 100 columns wide."""

from typing import Any

from beam_pipelines import schema
from trainer.evaluation import (
    AVERAGE_PRECISION,
    CALIBRATION_ERROR,
    LEVELS,
    LOG_LOSS,
    MODELS,
    ROC_AUC,
    SLICE,
    STUDY,
    WEIGHTED,
)

_LEVEL_TITLES = {SLICE: "slices", STUDY: "studies"}
_METRIC_TITLES = {
    LOG_LOSS: "log loss",
    ROC_AUC: "ROC AUC",
    AVERAGE_PRECISION: "average precision",
    CALIBRATION_ERROR: "expected calibration error",
}
_NAME_WIDTH, _COLUMN_WIDTH = 20, 16


def table(report: dict[str, Any]) -> str:
    """The report's figures: weighted log losses, then each subtype's, of slices and of studies."""
    bootstrap = report["bootstrap"]
    intervals = (
        f"; [{bootstrap['confidence']:.0%} intervals of {bootstrap['resamples']} resamples of "
        "patients]"
        if bootstrap["resamples"]
        else ""
    )
    temperatures = report["temperature"]
    tempered = ", ".join(f"{m} {temperatures[m]:.3f}" for m in MODELS if m in temperatures)
    lines = [
        f"{report['split']}: {report['num_slices']} slices, {report['num_studies']} studies, "
        f"{report['num_patients']} patients{intervals}",
        *_weighted_lines(report),
        f"temperature: {tempered}",
    ]
    for level in LEVELS:
        lines += ["", *_subtype_lines(report, level)]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _with_interval(estimate: dict[str, float | None]) -> str:
    if estimate["low"] is None:
        return _number(estimate["value"])
    low, high = (_number(estimate[end]) for end in ("low", "high"))
    return f"{_number(estimate['value'])} [{low}, {high}]"


def _weighted_lines(report: dict[str, Any]) -> list[str]:
    """A line for each model and each ratio of two, a column for each level."""
    models, comparisons = report["models"], report["comparisons"]
    rows = {
        name: [models[name][level][WEIGHTED] for level in LEVELS]
        for name in MODELS
        if name in models
    }
    for pair in sorted(comparisons[SLICE]):
        title = pair.replace("_calibrated", "") + (" calibrated" if "_calibrated" in pair else "")
        rows[title] = [comparisons[level][pair]["ratio"] for level in LEVELS]
    lines = [
        f"{'weighted log loss':<{_NAME_WIDTH + 4}}"
        + "".join(f"{_LEVEL_TITLES[n]:<32}" for n in LEVELS)
    ]
    for name, estimates in rows.items():
        cells = "".join(f"{_with_interval(estimate):<32}" for estimate in estimates)
        lines.append(f"  {name:<{_NAME_WIDTH + 2}}{cells}")
    return [line.rstrip() for line in lines]


def _subtype_lines(report: dict[str, Any], level: str) -> list[str]:
    """A block for each metric, a line for each subtype, a column for each model."""
    models = {name: report["models"][name] for name in MODELS if name in report["models"]}
    names = "".join(f"{name:>{_COLUMN_WIDTH}}" for name in models)
    lines = [f"{_LEVEL_TITLES[level]:<{_NAME_WIDTH}}{names}"]
    for metric, title in _METRIC_TITLES.items():
        lines.append(title)
        for subtype in schema.SUBTYPES:
            figures = [model[level]["subtypes"][subtype][metric] for model in models.values()]
            cells = "".join(f"{_number(f['value']):>{_COLUMN_WIDTH}}" for f in figures)
            lines.append(f"  {subtype:<{_NAME_WIDTH - 2}}{cells}")
    return lines
