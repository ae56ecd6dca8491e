"""A zip or zip64 archive, read one member at a time by byte ranges.

The archive is never unpacked. Its central directory is read once; a member is then one read of a
byte range. Python's `zipfile` would hold 874,035 ZipInfo objects (0.5 GB) and seek through one
shared file handle; this holds the directory's own bytes (90 MB) and reads from any number of
threads. Layout and field names follow PKWARE's APPNOTE 6.3, sections 4.3.7 (local header), 4.3.12
(central directory), 4.3.14 to 4.3.16 (ends of it) and 4.5.3 (zip64 sizes).
"""

import os
import struct
import zlib
from collections.abc import Iterator

import deflate
import numpy as np

from beam_pipelines import storage
from beam_pipelines.errors import UserError
from beam_pipelines.member import MAX_MEMBER_BYTES, BadMemberError, Member

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
# The end record may be followed by a comment of up to 65,535 bytes.
_END_SEARCH = _END.size + _END64_LOCATOR.size + 0xFFFF
_CENTRAL_MAGIC, _END_MAGIC = b"PK\x01\x02", b"PK\x05\x06"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 0x1, 0x800
_TO_ZIP64 = 0xFFFFFFFF
# A local header's extra field is seldom longer; then a second read fetches the rest.
_EXTRA_GUESS = 64


class _LocalBytes:
    """Byte ranges of a local file, by pread: no shared position, so safe between threads."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(storage.filesystem(path)[1], os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        # A damaged directory may ask for 2^64 bytes.
        length = min(length, self.size - offset)
        return os.pread(self._descriptor, length, offset) if length > 0 else b""

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class _RemoteBytes:
    """Byte ranges of an object in a bucket, each its own request."""

    def __init__(self, path: str) -> None:
        self._fs, self._name = storage.filesystem(path)
        self.size = self._fs.size(self._name)

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        return self._fs.cat_file(self._name, start=offset, end=end) if end > offset else b""


class ZipArchive:
    """A zip or zip64 archive, read by byte ranges."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._bytes = _LocalBytes(path) if storage.is_local(path) else _RemoteBytes(path)
        self._directory: bytes | None = None
        # Bytes that were put before the zip: the directory's offsets do not count them.
        self._prefix = 0
        self._starts = np.empty(0, np.int64)

    def __len__(self) -> int:
        self._load()
        return len(self._starts)

    def member(self, index: int) -> Member:
        """The DICOM member at an index from 0, in the order of the central directory."""
        return self._entry(self._load(), int(self._starts[index]))

    def find(self, file_name: str) -> Member | None:
        """The first member, of any kind, whose last path component is `file_name`."""
        directory = self._load()
        for start, _ in _walk(directory, self.path):
            member = self._entry(directory, start)
            if member.name.rsplit("/", 1)[-1] == file_name:
                return member
        return None

    def read(self, member: Member) -> bytes:
        """All bytes of a member; a bytearray, which libdeflate gives without a copy.

        Raises:
            BadMemberError: it is encrypted, damaged, or its size or checksum is not as recorded.
        """
        if member.size > MAX_MEMBER_BYTES:
            raise BadMemberError(f"{member.size} bytes are more than a slice can have")
        compressed = self._compressed(member, member.compressed_size)
        if len(compressed) < member.compressed_size:
            raise BadMemberError("the archive ends inside this member")
        data = _inflate(compressed, member)
        if len(data) != member.size:
            raise _wrong_size(len(data), member)
        if deflate.crc32(data) != member.crc:
            raise BadMemberError("wrong CRC-32")
        return data

    def read_head(self, member: Member, size: int) -> bytes:
        """At least the first `size` bytes of a member, fewer where it is shorter."""
        size = min(size, member.size)
        # Headers deflate poorly at worst: as many bytes as asked for are enough, bar stored blocks.
        length = min(member.compressed_size, size + 64)
        return _inflate_head(self._compressed(member, length), member, size)

    def _compressed(self, member: Member, length: int) -> bytes:
        if member.flags & _ENCRYPTED:
            raise BadMemberError("is encrypted")
        if member.method not in (_STORED, _DEFLATED):
            raise BadMemberError(f"compression method {member.method} is neither store nor deflate")
        guess = _LOCAL.size + len(member.name.encode()) + _EXTRA_GUESS
        data = self._bytes.read(member.offset, guess + length)
        if len(data) < _LOCAL.size or data[:4] != b"PK\x03\x04":
            raise BadMemberError("no local header where the central directory says")
        fields = _LOCAL.unpack_from(data)
        start = _LOCAL.size + fields[9] + fields[10]
        if start + length > len(data):
            data += self._bytes.read(member.offset + len(data), start + length - len(data))
        return data[start : start + length]

    def _load(self) -> bytes:
        if self._directory is None:
            directory, self._prefix = _read_directory(self._bytes, self.path)
            starts = [s for s, name in _walk(directory, self.path) if name.endswith(b".dcm")]
            self._starts = np.array(starts, np.int64)
            self._directory = directory
        return self._directory

    def _entry(self, directory: bytes, start: int) -> Member:
        return _central_member(directory, start, self._prefix)


def _inflate(data: bytes, member: Member) -> bytes:
    """A whole member; libdeflate takes 0.6 ms for a slice, isal 0.83 and zlib 1.3."""
    if member.method == _STORED:
        return data
    try:
        return deflate.deflate_decompress(data, member.size)
    except deflate.DeflateError:
        # It does not say what is wrong: damaged, cut short, or more than it should be.
        found = len(_inflate_head(data, member, member.size + 1))
    if found == member.size:
        raise BadMemberError("damaged deflate stream: it has all its bytes but no end")
    raise _wrong_size(found, member)


def _wrong_size(found: int, member: Member) -> BadMemberError:
    more = " or more" if found > member.size else ""
    return BadMemberError(f"inflates to {found} bytes{more}, not {member.size}")


def _inflate_head(data: bytes, member: Member, size: int) -> bytes:
    """Up to `size` bytes: a member that inflates to more than it says takes no more memory."""
    if member.method == _STORED:
        return data[:size]
    try:
        return zlib.decompressobj(wbits=-15).decompress(data, size)
    except zlib.error as error:
        raise BadMemberError(f"damaged deflate stream: {error}") from None


def _read_directory(source: _LocalBytes | _RemoteBytes, path: str) -> tuple[bytes, int]:
    """The bytes of the central directory, and how many bytes come before the zip."""
    tail_start = max(0, source.size - _END_SEARCH)
    tail = source.read(tail_start, _END_SEARCH)
    end = tail.rfind(_END_MAGIC)
    if end < 0 or end + _END.size > len(tail):
        raise UserError(
            f"--archive {path}: not a zip archive, or one that is cut short (no end-of-central-"
            f"directory record in its {source.size} bytes); give a whole zip or a folder"
        )
    *_, size, offset, _ = _END.unpack_from(tail, end)
    directory_end = tail_start + end
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        recorded = _END64_LOCATOR.unpack_from(tail, locator)[2]
        for directory_end in (recorded, tail_start + locator - _END64.size):
            record = source.read(max(0, directory_end), _END64.size)
            if len(record) == _END64.size and record[:4] == b"PK\x06\x06":
                break
        else:
            raise UserError(f"--archive {path}: its zip64 end record is not where it should be")
        size, offset = _END64.unpack(record)[-2:]
    for start in (offset, directory_end - size):
        directory = source.read(max(0, start), size)
        if start >= offset and len(directory) == size and directory[:4] in (_CENTRAL_MAGIC, b""):
            return directory, start - offset
    raise UserError(
        f"--archive {path}: the central directory should be {size} bytes at {offset}, but is not "
        f"there; the file has {source.size} bytes and may be cut short, so copy it again"
    )


def _walk(directory: bytes, path: str) -> Iterator[tuple[int, bytes]]:
    """Yields the start and the lower-case name of every entry."""
    start, header = 0, _CENTRAL.size
    lengths = struct.Struct("<3H")
    while start + header <= len(directory):
        if directory[start : start + 4] != _CENTRAL_MAGIC:
            raise UserError(f"--archive {path}: damaged central directory at its byte {start}")
        name, extra, comment = lengths.unpack_from(directory, start + 28)
        yield start, directory[start + header : start + header + name].lower()
        start += header + name + extra + comment


def _central_member(directory: bytes, start: int, prefix: int) -> Member:
    """The entry at `start`; its offset counts the bytes before the zip."""
    (
        _, _, _, flags, method, _, _, crc, compressed, size, name_length, extra_length,
        _, _, _, _, offset,
    ) = _CENTRAL.unpack_from(directory, start)  # fmt: skip
    name_end = start + _CENTRAL.size + name_length
    raw_name = directory[start + _CENTRAL.size : name_end]
    # Python's cp437 takes a microsecond a name.
    encoding = "utf-8" if flags & _UTF8 or raw_name.isascii() else "cp437"
    name = raw_name.decode(encoding, errors="replace")
    if _TO_ZIP64 in (compressed, size, offset):
        extra = directory[name_end : name_end + extra_length]
        size, compressed, offset = _zip64_fields(extra, [size, compressed, offset])
    return Member(name, offset + prefix, compressed, size, crc, method, flags)


def _zip64_fields(extra: bytes, values: list[int]) -> list[int]:
    """Replaces each value that is 0xFFFFFFFF by the next 8 bytes of the zip64 extra field."""
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, position)
        if tag == 1:
            body = extra[position + 4 : position + 4 + length]
            wide = iter(struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8]))
            return [next(wide, v) if v == _TO_ZIP64 else v for v in values]
        position += 4 + length
    return values
