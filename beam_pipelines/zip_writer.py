"""A zip writer for members that were deflated elsewhere, with zip64 and without timestamps.

zipfile can only deflate in the process that writes, one member after the other. Here worker
processes deflate and the writer only copies, and the same members give the same bytes.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import IO

_DEFLATED = 8
_VERSION = 45  # zip64
_DOS_DATE = (1 << 5) | 1  # 1980-01-01, the earliest a zip can state
_LIMIT_32 = 0xFFFFFFFF
_LIMIT_16 = 0xFFFF


@dataclass(frozen=True)
class DeflatedMember:
    """A member's name and its compressed contents."""

    name: str
    crc: int
    size: int
    deflated: bytes


def deflate(name: str, contents: bytes, level: int = 1) -> DeflatedMember:
    """Compresses a member's contents."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    deflated = compressor.compress(contents) + compressor.flush()
    return DeflatedMember(name, zlib.crc32(contents), len(contents), deflated)


class ZipWriter:
    """Writes members to an open binary file; `close` writes the central directory.

    The zip64 end records are always written, as the real archive has them.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._offset = 0
        self._directory: list[bytes] = []

    def add(self, member: DeflatedMember) -> None:
        """Appends a member, which must be smaller than 4 GiB."""
        name = member.name.encode("ascii")
        common = struct.pack(
            "<HHHHHIIIH", _VERSION, 0, _DEFLATED, 0, _DOS_DATE,
            member.crc, len(member.deflated), member.size, len(name),
        )  # fmt: skip
        extra, offset = b"", self._offset
        if offset >= _LIMIT_32:
            extra, offset = struct.pack("<HHQ", 1, 8, offset), _LIMIT_32
        self._directory.append(
            b"PK\x01\x02" + struct.pack("<H", (3 << 8) | _VERSION) + common
            + struct.pack("<HHHHII", len(extra), 0, 0, 0, 0o100644 << 16, offset) + name + extra
        )  # fmt: skip
        self._write(b"PK\x03\x04" + common + struct.pack("<H", 0) + name)
        self._write(member.deflated)

    def close(self) -> None:
        """Writes the central directory and the end records; the file stays open."""
        start, count = self._offset, len(self._directory)
        for entry in self._directory:
            self._write(entry)
        size, end64 = self._offset - start, self._offset
        self._write(
            b"PK\x06\x06"
            + struct.pack("<QHHIIQQQQ", 44, _VERSION, _VERSION, 0, 0, count, count, size, start)
        )
        self._write(b"PK\x06\x07" + struct.pack("<IQI", 0, end64, 1))
        short = min(count, _LIMIT_16)
        self._write(
            b"PK\x05\x06"
            + struct.pack(
                "<HHHHIIH", 0, 0, short, short, min(size, _LIMIT_32), min(start, _LIMIT_32), 0
            )
        )

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._offset

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)
