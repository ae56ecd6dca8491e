"""The table of results: printed, and kept in a Markdown file row by row."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from beam_pipelines.errors import UserError
from benchmarks.lines import Row
from benchmarks.machine import Machine

_TITLES = {
    "name": "row",
    "what": "what",
    "figure": "figure",
    "reference": "reference in the same run",
    "ratio": "ratio",
    "goal": "goal",
    "met": "met",
    "wall": "wall, s",
    "cpu": "CPU, s",
    "memory": "peak, GB: tree / process",
    "date": "date",
    "note": "note",
}
_FIELDS = tuple(field.name for field in dataclasses.fields(Row))
_MACHINE, _VERSIONS = "Machine: ", "Versions: "
_HEAD = """\
# Results of `make bench`

{machine}
{versions}

Figure and reference are of one run, in which both were measured in turns, one to three times; the
least time of each counts, because other work on a machine only ever adds to it. A slope is the
difference between a large and a small run over the difference of their sizes: start-up falls out.
Wall time, CPU time of the whole process tree and peak memory (of the tree, where pages that
processes share count for each, and of its largest process; sampled every 50 ms) are of the largest
measured run. Archives of any size repeat the pixels of {distinct} distinct drawn slices under other
names and UIDs. Rows of lines that were not run again keep their date.

"""


def render_table(rows: Iterable[Row]) -> str:
    """A Markdown table, padded so that it reads as text too."""
    cells = [tuple(_TITLES[field] for field in _FIELDS)]
    cells += [tuple(getattr(row, field) for field in _FIELDS) for row in rows]
    for line in cells:
        for cell in line:
            if "|" in cell or "\n" in cell:
                raise ValueError(f"a cell must be one line without '|': {cell!r}")
    widths = [max(len(line[i]) for line in cells) for i in range(len(_FIELDS))]
    lines = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def parse_table(text: str) -> list[Row]:
    """The rows of a rendered table; other lines of the text are passed over."""
    rows = []
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        is_row = line.startswith("| ") and len(cells) == len(_FIELDS)
        if is_row and cells != tuple(_TITLES.values()):
            rows.append(Row(*cells))
    return rows


def merge(old: Sequence[Row], new: Sequence[Row], lines: Sequence[str]) -> list[Row]:
    """The rows of the lines that ran, and the old rows of the others, in the order of the lines.

    Args:
        old: rows of an earlier run.
        new: rows of this run; they replace all old rows of their lines.
        lines: names of all lines there are, in the table's order; rows of others are dropped.
    """
    ran = {_line_of(row) for row in new}
    kept = [row for row in old if _line_of(row) not in ran and _line_of(row) in lines]
    return sorted([*kept, *new], key=lambda row: lines.index(_line_of(row)))


def _line_of(row: Row) -> str:
    return row.name.split(".", 1)[0]


def read_results(path: Path, machine: Machine) -> list[Row]:
    """The rows of a results file, none where there is no file.

    Raises:
        UserError: they were measured on another machine; rows of two cannot stand together.
    """
    if not path.exists():
        return []
    text = path.read_text()
    saved = next((x for x in text.splitlines() if x.startswith(_MACHINE)), "")
    if saved != _MACHINE + machine.hardware:
        raise UserError(
            f"--results {path}: its rows are of another machine ({saved.removeprefix(_MACHINE)}, "
            f"this one: {machine.hardware}); remove it and run all lines, or give another file"
        )
    return parse_table(text)


def write_results(path: Path, machine: Machine, rows: Sequence[Row], distinct: int) -> None:
    """Writes a results file."""
    head = _HEAD.format(
        machine=_MACHINE + machine.hardware,
        versions=_VERSIONS + machine.versions,
        distinct=distinct,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + render_table(rows))
