"""What a stage tells its user when it is done."""

import sys
from collections.abc import Callable

from beam_pipelines.layout import DataLayout

Advance = Callable[[int, int], None]


def no_progress(written: int, quarantined: int) -> None:
    """Progress that nobody watches."""


def report(stage: str, counts: dict[str, int], layout: DataLayout) -> None:
    """Prints one line on what a stage did with the slices that came in."""
    text = (
        f"{stage}: {counts['slices_in']} slices in, {counts['slices_written']} written, "
        f"{counts['slices_quarantined']} quarantined"
    )
    if counts["slices_quarantined"]:
        text += f" (see {layout.quarantine_csv(stage)})"
    if counts["shards_reused"]:
        text += f"; {counts['shards_reused']} shards were there already"
    print(text, file=sys.stderr)
