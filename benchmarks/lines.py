"""What a line of the benchmark is: a function that measures and returns rows of the table."""

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.measure import Usage

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_MODULES = (
    "archive_lines",
    "example_lines",
    "label_lines",
    "sequence_lines",
    "training_lines",
    "prediction_lines",
    "scaling_lines",
    "start_lines",
)


@dataclass(frozen=True)
class Row:
    """One row of the table, as it is printed.

    Attributes:
        name: unique; begins with the name of its line.
        what: what was measured.
        figure: the measured value with its unit.
        reference: what it is compared with, measured in the same run; "" where there is nothing.
        ratio: figure to reference, or the other way where the goal says so; "" without one.
        goal: what is asked for.
        met: yes, no, or "-" where nothing is asked for.
        wall: seconds of the largest run.
        cpu: CPU seconds of its process tree.
        memory: peak of the tree / of its largest process, GB.
        date: day of the measurement.
        note: sizes, and what a reader must know.
    """

    name: str
    what: str
    figure: str
    reference: str
    ratio: str
    goal: str
    met: str
    wall: str
    cpu: str
    memory: str
    date: str
    note: str


@dataclass(frozen=True)
class Goal:
    """A bound on a value.

    Attributes:
        of: what the value is, for the table.
        at_least: smallest value that meets the goal, or None.
        at_most: largest value that meets it, or None.
        unit: of the bound.
    """

    of: str
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        bounds = [("at least", self.at_least), ("at most", self.at_most)]
        texts = [f"{words} {bound:g}{self.unit}" for words, bound in bounds if bound is not None]
        return f"{self.of} {' and '.join(texts)}"

    def met(self, values: Iterable[float]) -> str:
        """Yes where every value is within the bounds; NaN never is."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return "yes" if all(low <= value <= high for value in values) else "no"


def number(value: float, unit: str = "", digits: int = 3) -> str:
    """A value to `digits` significant digits, with its unit: `1,464 images/s`."""
    if math.isnan(value):
        return "lost in noise"
    decimals = 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return f"{text} {unit}".rstrip()


def make_row(
    name: str,
    what: str,
    *,
    figure: str,
    usage: Usage,
    goal: Goal | None = None,
    judged: Sequence[float] = (),
    reference: str = "",
    ratio: float | None = None,
    note: str = "",
) -> Row:
    """Renders a row.

    Args:
        name: of the row.
        what: what was measured.
        figure: the value with its unit.
        usage: of the largest measured run.
        goal: what is asked for.
        judged: the values that the goal bounds.
        reference: what it is compared with.
        ratio: to the reference.
        note: sizes, and what a reader must know.
    """
    return Row(
        name=name,
        what=what,
        figure=figure,
        reference=reference,
        ratio="" if ratio is None else number(ratio),
        goal=str(goal) if goal else "",
        met=goal.met(judged) if goal else "-",
        wall=number(usage.wall_seconds),
        cpu=number(usage.cpu_seconds),
        memory=f"{usage.peak_tree_gb:.2f} / {usage.peak_process_gb:.2f}",
        date=usage.finished[:10],
        note=note,
    )


@dataclass(frozen=True)
class Line:
    """A part of the benchmark that can be run on its own.

    Attributes:
        name: for `--only`.
        what: one line on what it measures.
        measure: does so.
        archives: sizes in slices of the archives that it reads.
        fixtures_gb: of other data that it keeps in the work folder.
        scratch_gb: of what it writes and removes again.
    """

    name: str
    what: str
    measure: "Callable[[Bench], list[Row]]"
    archives: tuple[str, ...] = ()
    fixtures_gb: float = 0.0
    scratch_gb: float = 0.0


_REGISTRY: dict[str, Line] = {}


def line(
    name: str,
    *,
    archives: Sequence[str] = (),
    fixtures_gb: float = 0.0,
    scratch_gb: float = 0.0,
) -> "Callable[[Callable[[Bench], list[Row]]], Callable[[Bench], list[Row]]]":
    """Registers the decorated function as a line; its docstring's first line says what it is."""

    def register(
        measure: "Callable[[Bench], list[Row]]",
    ) -> "Callable[[Bench], list[Row]]":
        what = (measure.__doc__ or "").splitlines()[0].rstrip(".")
        made = Line(name, what, measure, tuple(archives), fixtures_gb, scratch_gb)
        if name in _REGISTRY:
            raise ValueError(f"two lines are called {name}")
        _REGISTRY[name] = made
        return measure

    return register


def all_lines() -> dict[str, Line]:
    """Every line by its name, in the order of the table."""
    modules = [importlib.import_module(f"benchmarks.{name}").__name__ for name in _MODULES]
    # Whichever module was imported first.
    ordered = sorted(_REGISTRY.values(), key=lambda line: modules.index(line.measure.__module__))
    return {line.name: line for line in ordered}


def with_note(row: Row, text: str) -> Row:
    """A row with more in its note."""
    return replace(row, note=f"{row.note}; {text}" if row.note else text)
