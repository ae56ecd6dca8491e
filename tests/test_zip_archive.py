import io
import random
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.errors import UserError
from beam_pipelines.member import MAX_MEMBER_BYTES, BadMemberError, Member
from beam_pipelines.zip_archive import ZipArchive

# Compresses to about a half, as slices do.
CONTENT = bytes(b & 0x1F for b in random.Random(0).randbytes(20_000))
METHODS = {"deflated": zipfile.ZIP_DEFLATED, "stored": zipfile.ZIP_STORED}

files = st.dictionaries(
    st.from_regex(r"\A[a-zä ]{1,9}(/[a-z]{1,5})?\.(dcm|DCM|csv)\Z"),
    st.tuples(st.binary(max_size=2000), st.sampled_from(list(METHODS.values()))),
    max_size=6,
)


def write(path: Path, data: bytes) -> ZipArchive:
    path.write_bytes(data)
    return ZipArchive(str(path))


def make_zip(
    contents: dict[str, tuple[bytes, int]],
    *,
    comment: bytes = b"",
    extra: bytes = b"",
    zip64: bool = False,
    streamed: bool = False,
) -> bytes:
    """A zip; `zip64` writes every local header with 64-bit sizes, `streamed` without any."""
    file = io.BytesIO()
    with zipfile.ZipFile(_Stream(file) if streamed else file, "w") as archive:  # type: ignore[arg-type]
        for name, (data, method) in contents.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.extra = method, extra
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(data)
        archive.comment = comment
    return file.getvalue()


class _Stream:
    """A file without seek: zipfile then writes sizes and checksums behind the data."""

    def __init__(self, file: io.BytesIO) -> None:
        self.write, self.flush = file.write, file.flush


def members(archive: ZipArchive) -> list[Member]:
    return [archive.member(i) for i in range(len(archive))]


@given(
    files,
    st.binary(max_size=30),
    st.sampled_from([b"", b"\x99\x99\x04\x00abcd", b"\x99\x99\xa0\x00" + b"x" * 160]),
    st.booleans(),
    st.booleans(),
    st.binary(max_size=40),
)
def test_random_zips_are_read_as_zipfile_reads_them(
    tmp_path_factory: pytest.TempPathFactory,
    contents: dict[str, tuple[bytes, int]],
    comment: bytes,
    extra: bytes,
    zip64: bool,
    streamed: bool,
    prefix: bytes,
):
    data = make_zip(contents, comment=comment, extra=extra, zip64=zip64, streamed=streamed)
    path = tmp_path_factory.getbasetemp() / "random.zip"
    archive = write(path, prefix + data)
    with zipfile.ZipFile(path) as expected:
        slices = [info for info in expected.infolist() if info.filename.lower().endswith(".dcm")]
        assert [m.name for m in members(archive)] == [info.filename for info in slices]
        assert [m.offset for m in members(archive)] == [info.header_offset for info in slices]
        for member, info in zip(members(archive), slices, strict=True):
            assert archive.read(member) == expected.read(info)
            for size in (0, 1, 700, 5000):
                head = archive.read_head(member, size)
                assert expected.read(info).startswith(head)
                assert len(head) >= min(size, member.size)


def zip64_directory(data: bytes) -> bytes:
    """The same zip with a zip64 end, and sizes and offsets in zip64 extra fields."""
    end = data.rfind(b"PK\x05\x06")
    count, _, start = struct.unpack_from("<HLL", data, end + 10)
    directory, position = b"", start
    for _ in range(count):
        fields = list(struct.unpack_from("<4s6H3L5H2L", data, position))
        name_start = position + 46
        name = data[name_start : name_start + fields[10]]
        wide = struct.pack("<2H3Q", 1, 24, fields[9], fields[8], fields[16])
        position = name_start + sum(fields[10:13])
        fields[8] = fields[9] = fields[16] = 0xFFFFFFFF
        fields[11:13] = len(wide) + 8, 0
        directory += struct.pack("<4s6H3L5H2L", *fields) + name
        directory += struct.pack("<2HL", 0x9999, 4, 7) + wide
    end64 = start + len(directory)
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end64, 1)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    return data[:start] + directory + record + locator + tail


@pytest.mark.parametrize("prefix", [b"", b"#!/bin/sh\nexit\n"])
def test_a_zip64_directory(tmp_path: Path, prefix: bytes):
    contents = {f"{i}.dcm": (CONTENT[: 1000 * i], METHODS["deflated"]) for i in range(4)}
    data = prefix + zip64_directory(make_zip(contents))
    archive = write(tmp_path / "a.zip", data)
    with zipfile.ZipFile(io.BytesIO(data)) as expected:
        assert [archive.read(m) for m in members(archive)] == [
            expected.read(info) for info in expected.infolist()
        ]


def test_find_is_by_the_last_part_of_the_path(tmp_path: Path):
    contents = {
        name: (name.encode(), METHODS["stored"])
        for name in ("x/my_stage_2_train.csv", "a.dcm", "x/stage_2_train.csv", "stage_2_train.csv")
    }
    archive = write(tmp_path / "a.zip", make_zip(contents))
    found = archive.find("stage_2_train.csv")
    assert found is not None
    assert archive.read(found) == b"x/stage_2_train.csv"
    assert archive.find("absent.csv") is None


def test_the_head_of_a_member_is_read_without_its_rest(tmp_path: Path):
    archive = write(tmp_path / "a.zip", make_zip({"a.dcm": (CONTENT, METHODS["deflated"])}))
    lengths = []
    read = archive._bytes.read

    def counting(offset: int, length: int) -> bytes:
        lengths.append(length)
        return read(offset, length)

    member = archive.member(0)
    archive._bytes.read = counting  # type: ignore[method-assign]
    assert archive.read_head(member, 1000) == CONTENT[:1000]
    assert sum(lengths) < 1500


@pytest.mark.parametrize("method", METHODS)
def test_a_member_in_a_bucket(method: str):
    from beam_pipelines import storage

    with storage.open_atomic("memory://bucket/a.zip") as file:
        file.write(
            make_zip({"a.dcm": (CONTENT, METHODS[method])}, extra=b"\x99\x99\x7a\0" + b"x" * 122)
        )
    archive = ZipArchive("memory://bucket/a.zip")
    assert archive.read(archive.member(0)) == CONTENT
    assert archive.read_head(archive.member(0), 100)[:100] == CONTENT[:100]
    storage.remove("memory://bucket/a.zip")


@pytest.mark.parametrize("method", METHODS)
@given(place=st.integers(0, 1_000_000))
def test_a_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, method: str, place: int
):
    data = bytearray(make_zip({"a.dcm": (CONTENT, METHODS[method])}))
    path = tmp_path_factory.getbasetemp() / "changed.zip"
    size = write(path, bytes(data)).member(0).compressed_size
    start = 30 + len("a.dcm")
    data[start + place % size] ^= 0x55
    archive = write(path, bytes(data))
    with pytest.raises(BadMemberError):
        archive.read(archive.member(0))


def test_what_is_wrong_with_a_member_is_said(tmp_path: Path):
    archive = write(tmp_path / "a.zip", make_zip({"a.dcm": (CONTENT, METHODS["deflated"])}))
    good = archive.member(0)
    for change, reason in [
        ({"flags": 1}, "is encrypted"),
        ({"method": 12}, "compression method 12 is neither store nor deflate"),
        ({"size": MAX_MEMBER_BYTES + 1}, "more than a slice can have"),
        ({"offset": 5}, "no local header where the central directory says"),
        ({"offset": 1 << 63}, "no local header where the central directory says"),
        ({"compressed_size": 1 << 63}, "the archive ends inside this member"),
        ({"size": 19_999}, "inflates to 20000 bytes or more, not 19999"),
        ({"size": 20_001}, "inflates to 20000 bytes, not 20001"),
        ({"crc": 1}, "wrong CRC-32"),
    ]:
        with pytest.raises(BadMemberError, match=reason):
            archive.read(good._replace(**change))


def test_a_bomb_is_inflated_no_further_than_it_says(tmp_path: Path):
    deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflated.compress(bytes(50_000_000)) + deflated.flush()
    archive = write(tmp_path / "a.zip", make_zip({"a.dcm": (data, METHODS["stored"])}))
    bomb = archive.member(0)._replace(method=8, size=100)
    with pytest.raises(BadMemberError, match="inflates to 101 bytes or more, not 100"):
        archive.read(bomb)
    assert len(archive.read_head(bomb, 4096)) == 100


def test_a_stream_without_an_end_is_damaged(tmp_path: Path):
    """All bytes come out and their checksum would be right, but something was cut off."""
    deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflated.compress(CONTENT) + deflated.flush(zlib.Z_SYNC_FLUSH)
    archive = write(tmp_path / "a.zip", make_zip({"a.dcm": (data, METHODS["stored"])}))
    endless = archive.member(0)._replace(method=8, size=len(CONTENT), crc=zlib.crc32(CONTENT))
    with pytest.raises(BadMemberError, match="it has all its bytes but no end"):
        archive.read(endless)


@pytest.mark.parametrize("data", [b"", b"no zip" * 1000, b"PK\x05\x06"])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes):
    archive = write(tmp_path / "a.zip", data)
    with pytest.raises(UserError, match=rf"a\.zip: not a zip archive.* in its {len(data)} bytes"):
        len(archive)


def test_a_zip_that_is_cut_short_is_refused(tmp_path: Path):
    contents = {f"{i}.dcm": (CONTENT, METHODS["deflated"]) for i in range(5)}
    data = make_zip(contents)
    for cut in (data[:-1], data[:-40], data[: len(data) // 2], data[len(data) // 2 :]):
        with pytest.raises(UserError, match=r"--archive .*a\.zip: "):
            len(write(tmp_path / "a.zip", cut))


def test_a_file_url(tmp_path: Path):
    write(tmp_path / "a.zip", make_zip({"a.dcm": (CONTENT, METHODS["deflated"])}))
    archive = ZipArchive(f"file://{tmp_path}/a.zip")
    assert archive.read(archive.member(0)) == CONTENT


def test_a_damaged_directory_is_refused(tmp_path: Path):
    data = make_zip({f"{i}.dcm": (b"", METHODS["stored"]) for i in range(3)})
    damaged = data.replace(b"PK\x01\x02", b"PK\x01\x03")
    with pytest.raises(UserError, match="central directory"):
        len(write(tmp_path / "a.zip", damaged))
