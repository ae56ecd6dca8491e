"""The quarantine: slices that a stage could not use, one CSV a stage, with the reason."""

import csv
import io
from collections.abc import Iterable
from typing import NamedTuple

from beam_pipelines import shards, storage
from beam_pipelines.layout import DataLayout


class BadSlice(NamedTuple):
    """A slice that is left out.

    Attributes:
        member_name: its path in the archive.
        image_id: SOPInstanceUID; "" where the header could not be read.
        subset: train or test part of the archive.
        stage: the program that left it out.
        reason: why, in one line; holds no value of the header outside the allow-list.
    """

    member_name: str
    image_id: str
    subset: str
    stage: str
    reason: str


def write_quarantine(layout: DataLayout, stage: str, slices: Iterable[BadSlice]) -> str:
    """Writes a stage's quarantine file, also when it is empty, and returns its path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(BadSlice._fields)
    writer.writerows(map(_printable, row) for row in sorted(slices))
    path = layout.quarantine_csv(stage)
    storage.write_text(path, text.getvalue())
    return path


def settle(
    layout: DataLayout,
    stage: str,
    receipts: Iterable[shards.Receipt],
    slices_in: int,
    max_bad_fraction: float,
) -> int:
    """Writes a stage's quarantine file and checks that every slice that came in is accounted for.

    Args:
        layout: the data root.
        stage: the stage's name.
        receipts: of all its shards; the quarantine is theirs together.
        slices_in: slices that came in.
        max_bad_fraction: largest share of them that may be in quarantine.

    Returns:
        The number of slices in quarantine.

    Raises:
        RuntimeError: slices are neither written nor quarantined.
        UserError: too many are bad.
    """
    receipts = list(receipts)
    bad = [BadSlice(*row) for receipt in receipts for row in receipt["quarantined"]]
    written = sum(receipt["num_slices"] for receipt in receipts)
    shards.check_complete(stage, slices_in, written + len(bad))
    report = write_quarantine(layout, stage, bad)
    shards.check_bad_fraction(stage, len(bad), slices_in, max_bad_fraction, report)
    return len(bad)


def _printable(cell: str) -> str:
    # A stranger's archive may hold any name; one row must stay one line.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cell)


def read_quarantine(layout: DataLayout, stage: str) -> list[BadSlice]:
    """Reads a stage's quarantine file; empty where the stage has not run."""
    try:
        text = storage.read_bytes(layout.quarantine_csv(stage)).decode()
    except FileNotFoundError:
        return []
    return [BadSlice(**row) for row in csv.DictReader(io.StringIO(text))]
