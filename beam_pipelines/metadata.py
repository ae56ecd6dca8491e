"""Metadata of slices: one CSV row a slice.

The rows are made in parts, one a range of the archive's members, and merged into
`train_metadata.csv` and `test_metadata.csv` when all parts are there.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from beam_pipelines import dicom, shards, storage
from beam_pipelines.archive import Archive, open_archive
from beam_pipelines.dicom import BadSliceError
from beam_pipelines.errors import UserError, require
from beam_pipelines.layout import DataLayout, shard_name
from beam_pipelines.member import BadMemberError, Member
from beam_pipelines.progress import Advance, no_progress
from beam_pipelines.quarantine import BadSlice
from beam_pipelines.slice_references import COLUMNS
from beam_pipelines.splits import subset_of

STAGE = "extract_metadata"
HOW_TO_MAKE = "python -m beam_pipelines.extract_metadata"
MEMBERS_PER_PART = 4096
# How often a part says how far it is.
_MEMBERS_AT_ONCE = 256
# Raise it when a row's columns or their meaning change.
_VERSION = 1
# Bytes of a file that are read first; RSNA headers take 800, with private elements seldom 64 KB.
_HEAD_SIZES = (4096, 1 << 18)


class MemberRange(NamedTuple):
    """Members from `start` up to `end` of an archive; a task of MetadataBuilder."""

    part: int
    start: int
    end: int


def member_ranges(num_members: int) -> list[MemberRange]:
    """Ranges that cover all members."""
    starts = range(0, num_members, MEMBERS_PER_PART)
    return [MemberRange(i, s, min(s + MEMBERS_PER_PART, num_members)) for i, s in enumerate(starts)]


def read_member_header(archive: Archive, member: Member) -> dicom.Header:
    """Reads a slice's header from as little of its member as will do.

    Raises:
        BadMemberError: the member cannot be read, or its name cannot be a cell of a table.
        BadSliceError: its header cannot be used.
    """
    if not member.name.isprintable():
        raise BadMemberError("its name holds characters that cannot be printed; rename it")
    for size in _HEAD_SIZES:
        if size >= member.size:
            break
        try:
            header = dicom.read_header(archive.read_head(member, size))
        except BadSliceError:
            # The cut may be to blame: decide on the whole file.
            continue
        if header is not None:
            return header
    header = dicom.read_header(archive.read(member))
    if header is None:
        raise BadSliceError("has no pixel data")
    return header


@dataclass
class MetadataBuilder:
    """Writes the metadata rows of a range of members to one part.

    Attributes:
        archive_path: the archive.
        folder: where the parts go.
        num_parts: how many there will be.
    """

    archive_path: str
    folder: str
    num_parts: int
    _archive: Archive | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Opens the archive."""
        self._archive = open_archive(self.archive_path)

    def build(self, task: MemberRange, advance: Advance = no_progress) -> shards.Receipt:
        """Writes one part; see `transforms.Builder`."""
        assert self._archive is not None, "setup comes first"
        members = [self._archive.member(i) for i in range(task.start, task.end)]
        name = shard_name(task.part, self.num_parts, "csv")
        expected = shards.fingerprint(STAGE, _VERSION, COLUMNS, members)
        return shards.build_shard(
            self.folder, name, expected, lambda file: self._write(file, members, advance)
        )

    def _write(self, file: IO[bytes], members: list[Member], advance: Advance) -> shards.Receipt:
        bad: list[BadSlice] = []
        counts = {"train": 0, "test": 0}
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        for start in range(0, len(members), _MEMBERS_AT_ONCE):
            block = members[start : start + _MEMBERS_AT_ONCE]
            num_bad = len(bad)
            for subset, row in self._rows(block, bad):
                writer.writerow([subset, *row])
                counts[subset] += 1
            newly_bad = len(bad) - num_bad
            advance(len(block) - newly_bad, newly_bad)
        text.detach()
        return {
            "slices_in": len(members),
            "num_slices": sum(counts.values()),
            **counts,
            "quarantined": bad,
        }

    def _rows(
        self, members: list[Member], bad: list[BadSlice]
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Subset and row of each member; what has none is added to `bad`."""
        assert self._archive is not None, "setup comes first"
        for member in members:
            subset = subset_of(member.name)
            try:
                header = read_member_header(self._archive, member)
            except (BadMemberError, BadSliceError) as error:
                bad.append(BadSlice(member.name, "", subset, STAGE, str(error)))
            else:
                yield subset, (*header.columns, *member)


def read_metadata_manifest(layout: DataLayout) -> dict[str, Any]:
    """What the metadata was made from.

    Raises:
        UserError: the metadata is missing or incomplete.
    """
    for path in (layout.metadata_manifest, *map(layout.metadata_csv, ("train", "test"))):
        if not storage.exists(path):
            raise UserError(f"{path}: no such file; run {HOW_TO_MAKE} first")
    return storage.read_json(layout.metadata_manifest)


def open_described_archive(path: str, manifest: dict[str, Any]) -> Archive:
    """Opens the archive that the metadata was made from.

    Args:
        path: the archive.
        manifest: what the metadata was made from.

    Raises:
        UserError: there is no archive, or one of another size: the offsets would not be right.
    """
    archive = open_archive(path)
    require(
        len(archive) == manifest["num_members"],
        f"--archive {path}: holds {len(archive)} DICOM files, but the metadata is of "
        f"{manifest['num_members']}; give the archive that it was made from "
        f"({manifest['archive']}), or run {HOW_TO_MAKE} again",
    )
    return archive
