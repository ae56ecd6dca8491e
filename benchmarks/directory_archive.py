"""Makes a zip with as many members as the RSNA archive, nearly empty: to list them.

    python -m benchmarks.directory_archive --output members.zip --members 874035

Two members of 2.5 GB come first, which are holes in a sparse file: so all others lie beyond 4 GiB,
and their directory entries have the zip64 fields that most of the real archive's have.
"""

import argparse
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from beam_pipelines.zip_writer import DeflatedMember, ZipWriter, deflate

_ROOT = "rsna-intracranial-hemorrhage-detection"
_HOLE_BYTES = 2_500_000_000


class _SparseFile:
    """Writes to a file; what is large is all zeros, and a hole does for it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        if len(data) == _HOLE_BYTES:
            self._file.seek(_HOLE_BYTES, 1)
            return len(data)
        return self._file.write(data)


def write_archive(path: Path, num_members: int) -> None:
    """Writes the archive; members have real names, and a few bytes each."""
    contents = deflate("", b"not a slice")
    # Memory that is never touched takes none.
    zeros = cast(bytes, mmap.mmap(-1, _HOLE_BYTES))
    with path.open("wb") as file:
        writer = ZipWriter(cast(IO[bytes], _SparseFile(file)))
        for name in ("filler_0", "filler_1"):
            writer.add(DeflatedMember(f"{_ROOT}/{name}", 0, _HOLE_BYTES, zeros))
        for number in range(num_members):
            subset = "test" if number % 7 == 0 else "train"
            name = f"{_ROOT}/stage_2_{subset}/ID_{(number * 0x9E3779B1) & 0xFFFFFFFFF:09x}.dcm"
            writer.add(DeflatedMember(name, contents.crc, contents.size, contents.deflated))
        writer.close()


def list_with_archive(path: str) -> Sequence[Any]:
    """Every member, by the project's own reader."""
    from beam_pipelines.archive import open_archive

    archive = open_archive(path)
    return [archive.member(index) for index in range(len(archive))]


def list_with_zipfile(path: str) -> Sequence[Any]:
    """Every member, by Python's zipfile."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return [info for info in archive.infolist() if info.filename.endswith(".dcm")]


def main() -> None:
    """Makes the archive, or lists it and prints the number of its members."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.directory_archive", description=__doc__
    )
    parser.add_argument("--output", type=Path, help="the zip to write")
    parser.add_argument("--members", type=int, help="of the zip")
    parser.add_argument("--list", help="a zip to list")
    parser.add_argument("--by", choices=("archive", "zipfile"), default="archive")
    args = parser.parse_args()
    if args.list:
        listing = list_with_archive if args.by == "archive" else list_with_zipfile
        print(len(listing(args.list)))
    else:
        write_archive(args.output, args.members)


if __name__ == "__main__":
    main()
