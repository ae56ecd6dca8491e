"""Which archives there are, and how large they are.

Apart from `slice_archive`, which makes them, because that needs OpenCV and pydicom.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# Raise it when the same sizes give other bytes: archives of the work folder are made anew.
ARCHIVE_VERSION = 1
# Of a slice in the zip: 525 KB of pixels, deflated to 0.40, as real ones are to 0.39.
MB_PER_SLICE = 0.212


@dataclass(frozen=True)
class ArchiveSize:
    """An archive.

    Attributes:
        full: slices.
        quick: slices in a smoke run.
        uneven: whether a few patients have half of the slices.
    """

    full: int
    quick: int
    uneven: bool = False


ARCHIVES = {
    "1k": ArchiveSize(1_000, 100),
    "5k": ArchiveSize(5_000, 200),
    "10k": ArchiveSize(10_000, 400),
    "30k": ArchiveSize(30_000, 600),
    "40k": ArchiveSize(40_000, 800),
    "100k": ArchiveSize(100_000, 1_200),
    "uneven_1k": ArchiveSize(1_000, 100, uneven=True),
    "uneven_10k": ArchiveSize(10_000, 400, uneven=True),
}


def num_slices(name: str, quick: bool) -> int:
    """Slices of an archive."""
    return ARCHIVES[name].quick if quick else ARCHIVES[name].full


def gigabytes(names: Iterable[str], quick: bool) -> float:
    """Size on disk of some archives, each counted once."""
    return sum(num_slices(name, quick) for name in set(names)) * MB_PER_SLICE / 1e3
