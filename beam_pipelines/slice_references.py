"""References to slices: rows of the metadata, and how many of them travel as one small element.

What is shuffled in place of pixels is the text of metadata rows, deflated by the batch: 80 bytes a
slice. The worker that reads the slices parses them.
"""

import csv
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from beam_pipelines import dicom, storage
from beam_pipelines.dicom_elements import COLUMN_COUNTS
from beam_pipelines.layout import DataLayout
from beam_pipelines.member import Member

_MEMBER_COLUMNS = tuple(f"member_{name}" for name in Member._fields)
COLUMNS = (*dicom.HEADER_COLUMNS, *_MEMBER_COLUMNS)
# About 4,000 rows: what goes from one block to one shard travels as one element.
_BLOCK_BYTES = 1 << 20
_INDEX = {column: i for i, column in enumerate(COLUMNS)}


class SliceReference(NamedTuple):
    """Who a slice belongs to, where it lies, where its bytes are.

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


def _columns_of(keyword: str) -> slice:
    start = _INDEX[f"{keyword}_0"]
    return slice(start, start + COLUMN_COUNTS[keyword])


_POSITION = _columns_of("ImagePositionPatient")
_ORIENTATION = _columns_of("ImageOrientationPatient")
_SPACING = _columns_of("PixelSpacing")
_MEMBER = slice(_INDEX[_MEMBER_COLUMNS[0]], len(COLUMNS))
_UIDS = tuple(
    _INDEX[keyword]
    for keyword in ("SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID")
)
_PATIENT, _NUMBER = _INDEX["PatientID"], _INDEX["InstanceNumber"]


def parse_references(rows: Iterable[str], subset: str) -> Iterator[SliceReference]:
    """Parses rows of a metadata file.

    Args:
        rows: the rows' texts.
        subset: train or test, by the file that they are from.
    """
    for cells in csv.reader(rows):
        image_id, patient_id, study, series = (cells[i] for i in _UIDS)
        name, *numbers = cells[_MEMBER]
        yield SliceReference(
            image_id=image_id,
            patient_id=patient_id,
            study_instance_uid=study,
            series_instance_uid=series,
            subset=subset,
            instance_number=int(float(cells[_NUMBER])) if cells[_NUMBER] else None,
            image_position_patient=tuple(map(float, cells[_POSITION])),
            image_orientation_patient=tuple(map(float, cells[_ORIENTATION])),
            pixel_spacing_mm=sum(map(float, cells[_SPACING])) / 2 if cells[_SPACING][0] else 0.0,
            member=Member(name, *map(int, numbers)),
        )


class RowBlock(NamedTuple):
    """Rows of a metadata file: those that start from byte `start` up to `end`."""

    path: str
    subset: str
    start: int
    end: int


def row_blocks(layout: DataLayout) -> list[RowBlock]:
    """Blocks that cover both metadata files.

    Beam's ReadFromText would hand on every row as an element of its own, and keeps 300 bytes of
    memory a row on the embedded runner.
    """
    blocks = []
    for subset in ("train", "test"):
        path = layout.metadata_csv(subset)
        size = storage.size(path)
        for start in range(0, size, _BLOCK_BYTES):
            blocks.append(RowBlock(path, subset, start, min(start + _BLOCK_BYTES, size)))
    return blocks


def read_block(block: RowBlock) -> list[str]:
    """The rows of a block, without the file's header."""
    with storage.open_read(block.path) as file:
        # A row that starts before the block is the block before's; so is the header.
        file.seek(max(block.start - 1, 0))
        file.readline()
        rows = []
        while file.tell() < block.end and (line := file.readline()):
            rows.append(line.decode().rstrip("\n"))
    return rows


def patient_ids(rows: Iterable[str]) -> list[str]:
    """The PatientID of each row of a metadata file."""
    return [cells[_PATIENT] for cells in csv.reader(rows)]


def pack_rows(rows: Sequence[str]) -> bytes:
    """Packs rows, which hold no line breaks, into one element of a shuffle."""
    return zlib.compress("\n".join(rows).encode(), level=1)


def unpack_rows(batch: bytes) -> list[str]:
    """The rows of a packed element."""
    return zlib.decompress(batch).decode().split("\n")


def read_references(layout: DataLayout, subset: str) -> Iterator[SliceReference]:
    """Reads a metadata file row by row."""
    with storage.open_read(layout.metadata_csv(subset)) as file:
        rows = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        next(rows)
        yield from parse_references(rows, subset)
