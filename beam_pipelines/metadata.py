"""Metadata of slices: one CSV row a slice, and how it is read back as a reference to the slice.

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
from beam_pipelines.dicom_elements import COLUMN_COUNTS
from beam_pipelines.errors import UserError, require
from beam_pipelines.layout import DataLayout, shard_name
from beam_pipelines.member import BadMemberError, Member
from beam_pipelines.quarantine import BadSlice, settle
from beam_pipelines.splits import subset_of

STAGE = "extract_metadata"
HOW_TO_MAKE = "python -m beam_pipelines.extract_metadata"
MEMBERS_PER_PART = 4096
# Raise it when a row's columns or their meaning change.
_VERSION = 1
_MEMBER_COLUMNS = tuple(f"member_{name}" for name in Member._fields)
COLUMNS = (*dicom.HEADER_COLUMNS, *_MEMBER_COLUMNS)
# Bytes of a file that are read first; RSNA headers take 800, with private elements seldom 64 KB.
_HEAD_SIZES = (4096, 1 << 18)


class SliceReference(NamedTuple):
    """What is shuffled in place of a slice: who it belongs to, where it lies, where its bytes are.

    Attributes:
        image_id: SOPInstanceUID.
        patient_id: PatientID.
        study_instance_uid: StudyInstanceUID.
        series_instance_uid: SeriesInstanceUID.
        subset: train or test part of the archive.
        instance_number: InstanceNumber, or None.
        image_position_patient: x, y, z in mm.
        image_orientation_patient: direction cosines of a row, then of a column.
        pixel_spacing_mm: mean of PixelSpacing; 0 where it is absent.
        member: the archive's member.
        label: 0 or 1 for each subtype, or None where the slice has no labels.
        problem: why the slice cannot be used, "" where it can.
    """

    image_id: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    subset: str
    instance_number: int | None
    image_position_patient: tuple[float, ...]
    image_orientation_patient: tuple[float, ...]
    pixel_spacing_mm: float
    member: Member
    label: tuple[int, ...] | None = None
    problem: str = ""


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

    def build(self, task: MemberRange) -> shards.Receipt:
        """Writes one part; see `transforms.Builder`."""
        assert self._archive is not None, "setup comes first"
        members = [self._archive.member(i) for i in range(task.start, task.end)]
        name = shard_name(task.part, self.num_parts, "csv")
        expected = shards.fingerprint(STAGE, _VERSION, COLUMNS, members)
        return shards.build_shard(
            self.folder, name, expected, lambda file: self._write(file, members)
        )

    def _write(self, file: IO[bytes], members: list[Member]) -> shards.Receipt:
        assert self._archive is not None, "setup comes first"
        bad: list[BadSlice] = []
        counts = {"train": 0, "test": 0}
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        for member in members:
            subset = subset_of(member.name)
            try:
                header = read_member_header(self._archive, member)
            except (BadMemberError, BadSliceError) as error:
                bad.append(BadSlice(member.name, "", subset, STAGE, str(error)))
                continue
            writer.writerow([subset, *header.columns, *member])
            counts[subset] += 1
        text.detach()
        return {
            "slices_in": len(members),
            "num_slices": sum(counts.values()),
            **counts,
            "quarantined": bad,
        }


@dataclass(frozen=True)
class PublishMetadata:
    """Merges the parts into the metadata files once all are there.

    Attributes:
        data_dir: data root.
        archive_path: what the manifest names as the source.
        num_members: DICOM members of the archive.
        max_bad_fraction: largest share of them that may be in quarantine.
    """

    data_dir: str
    archive_path: str
    num_members: int
    max_bad_fraction: float

    def __call__(self, receipts: list[shards.Receipt]) -> None:
        """Merges; raises UserError where too many slices are bad."""
        layout = DataLayout(self.data_dir)
        receipts = sorted(receipts, key=lambda r: r["name"])
        counts = {s: sum(r[s] for r in receipts) for s in ("train", "test")}
        num_bad = settle(layout, STAGE, receipts, self.num_members, self.max_bad_fraction)
        with (
            storage.open_atomic(layout.metadata_csv("train")) as train,
            storage.open_atomic(layout.metadata_csv("test")) as test,
        ):
            files = {b"train": train, b"test": test}
            for file in files.values():
                file.write((",".join(COLUMNS) + "\n").encode())
            for receipt in receipts:
                with storage.open_read(
                    storage.join(layout.metadata_parts, receipt["name"])
                ) as part:
                    for line in part:
                        subset, row = line.split(b",", 1)
                        files[subset].write(row)
        shards.remove_stale(layout.metadata_parts, receipts)
        storage.write_json(
            layout.metadata_manifest,
            {
                "archive": self.archive_path,
                "fingerprint": shards.fingerprint([r["fingerprint"] for r in receipts]),
                "num_members": self.num_members,
                "num_slices": counts,
                "num_quarantined": num_bad,
            },
        )


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


def parse_reference(line: str, subset: str) -> SliceReference:
    """Reads a row of a metadata file.

    Args:
        line: the row's text.
        subset: train or test, by the file that it is from.
    """
    row = dict(zip(COLUMNS, next(csv.reader([line])), strict=True))

    def numbers(keyword: str) -> tuple[float, ...]:
        count = COLUMN_COUNTS[keyword]
        return tuple(float(row[f"{keyword}_{i}"]) for i in range(count))

    name, *rest = (row[column] for column in _MEMBER_COLUMNS)
    return SliceReference(
        image_id=row["SOPInstanceUID"],
        patient_id=row["PatientID"],
        study_instance_uid=row["StudyInstanceUID"],
        series_instance_uid=row["SeriesInstanceUID"],
        subset=subset,
        instance_number=int(float(row["InstanceNumber"])) if row["InstanceNumber"] else None,
        image_position_patient=numbers("ImagePositionPatient"),
        image_orientation_patient=numbers("ImageOrientationPatient"),
        pixel_spacing_mm=sum(numbers("PixelSpacing")) / 2 if row["PixelSpacing_0"] else 0.0,
        member=Member(name, *map(int, rest)),
    )


def read_references(layout: DataLayout, subset: str) -> Iterator[SliceReference]:
    """Reads a metadata file row by row."""
    with storage.open_read(layout.metadata_csv(subset)) as file:
        for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8", newline="\n")):
            if number:
                yield parse_reference(line.rstrip("\n"), subset)
