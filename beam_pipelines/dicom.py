"""The header of a DICOM slice: an allow-list of keywords, typed, with nothing that names a person.

pydicom reads the header; what is wrong with a slice raises BadSliceError, whose text is a reason
for the quarantine file and never holds a value of the header outside the allow-list.
"""

import io
import math
import warnings
from dataclasses import dataclass
from typing import Any

import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian

# DICOM's rules for UIDs would warn of every id of the RSNA archive ("ID_dc333386b").
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# keyword -> how many columns of metadata its values get; further values are left out.
COLUMN_COUNTS = {
    "SOPInstanceUID": 1,
    "SOPClassUID": 1,
    "Modality": 1,
    "PatientID": 1,
    "StudyInstanceUID": 1,
    "SeriesInstanceUID": 1,
    "InstanceNumber": 1,
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "SliceThickness": 1,
    "SpacingBetweenSlices": 1,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": 1,
    "NumberOfFrames": 1,
    "Rows": 1,
    "Columns": 1,
    "PixelSpacing": 2,
    "BitsAllocated": 1,
    "BitsStored": 1,
    "HighBit": 1,
    "PixelRepresentation": 1,
    "PixelPaddingValue": 1,
    "WindowCenter": 2,
    "WindowWidth": 2,
    "RescaleIntercept": 1,
    "RescaleSlope": 1,
    "BurnedInAnnotation": 1,
}
HEADER_COLUMNS = tuple(
    keyword if count == 1 else f"{keyword}_{i}"
    for keyword, count in COLUMN_COUNTS.items()
    for i in range(count)
)
_KEYWORDS = list(COLUMN_COUNTS)
_PIXEL_DATA_LITTLE, _PIXEL_DATA_BIG = b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"


class BadSliceError(Exception):
    """A slice that cannot be used, with the reason."""


@dataclass(frozen=True)
class Header:
    """What the pipeline needs of a slice's header.

    Attributes:
        sop_instance_uid: the slice's id, unique in a data set.
        patient_id: PatientID.
        study_instance_uid: StudyInstanceUID.
        series_instance_uid: SeriesInstanceUID.
        instance_number: InstanceNumber, or None.
        image_position_patient: x, y, z in mm of the first pixel's centre, towards the patient's
            left, back and head.
        image_orientation_patient: direction cosines of a row, then of a column.
        pixel_spacing: mm between rows, between columns; None where it is absent.
        columns: text of each of HEADER_COLUMNS, "" where a value is absent.
    """

    sop_instance_uid: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    instance_number: int | None
    image_position_patient: tuple[float, ...]
    image_orientation_patient: tuple[float, ...]
    pixel_spacing: tuple[float, ...] | None
    columns: tuple[str, ...]


def read_dataset(data: bytes) -> tuple[pydicom.FileDataset, int | None]:
    """Reads the allow-listed elements before the pixel data.

    Args:
        data: the file, or its beginning.

    Returns:
        The data set, and the offset of the pixel data element in `data`; None where `data` ends
        before it. A deflated data set has no such offset: it is given its length, once it is whole.

    Raises:
        BadSliceError: this is no DICOM file or its header is damaged.
    """
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_KEYWORDS)
    except Exception as error:
        # pydicom raises a dozen kinds for damaged input; their texts may quote the header's values.
        raise BadSliceError(f"not a readable DICOM header ({type(error).__name__})") from None
    if dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return dataset, len(data)
    offset = stream.tell()
    marker = data[offset : offset + 4]
    reached = marker in (_PIXEL_DATA_LITTLE, _PIXEL_DATA_BIG)
    return dataset, offset if reached else None


def read_header(data: bytes) -> Header | None:
    """Reads a slice's header from a file's beginning.

    Returns:
        The header, or None where `data` ends before the pixel data: then give more of the file.

    Raises:
        BadSliceError: the header is damaged, or a value that the pipeline cannot do without is
            absent or malformed.
    """
    dataset, pixel_offset = read_dataset(data)
    return None if pixel_offset is None else parse_header(dataset)


def parse_header(dataset: pydicom.Dataset) -> Header:
    """Checks and converts the values of a data set.

    Raises:
        BadSliceError: names the keyword that is absent or malformed.
    """
    position = _numbers(dataset, "ImagePositionPatient", 3)
    orientation = _numbers(dataset, "ImageOrientationPatient", 6)
    if position is None or orientation is None:
        keyword = "ImagePositionPatient" if position is None else "ImageOrientationPatient"
        raise BadSliceError(f"{keyword} is absent: the slice has no place in its series")
    number = _numbers(dataset, "InstanceNumber", 1)
    return Header(
        sop_instance_uid=_required_text(dataset, "SOPInstanceUID"),
        patient_id=_required_text(dataset, "PatientID"),
        study_instance_uid=_required_text(dataset, "StudyInstanceUID"),
        series_instance_uid=_required_text(dataset, "SeriesInstanceUID"),
        instance_number=None if number is None else int(number[0]),
        image_position_patient=position,
        image_orientation_patient=orientation,
        pixel_spacing=_numbers(dataset, "PixelSpacing", 2),
        columns=tuple(_flatten(dataset)),
    )


def values(dataset: pydicom.Dataset, keyword: str) -> list[Any]:
    """The values of an element, an empty list where it is absent or empty.

    Raises:
        BadSliceError: the element cannot be converted to its type.
    """
    try:
        value = dataset.get(keyword)
    except Exception as error:
        raise BadSliceError(f"{keyword} is malformed ({type(error).__name__})") from None
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def number(dataset: pydicom.Dataset, keyword: str, default: float | None = None) -> float:
    """The first value of an element as a finite number.

    Raises:
        BadSliceError: it is malformed, or absent without a default.
    """
    found = numbers(dataset, keyword)
    if found:
        return found[0]
    if default is None:
        raise BadSliceError(f"{keyword} is absent")
    return default


def numbers(dataset: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """All values of an element as finite numbers; none where it is absent or empty.

    Raises:
        BadSliceError: one is malformed.
    """
    return _numbers(dataset, keyword, len(values(dataset, keyword))) or ()


def _numbers(dataset: pydicom.Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    found = values(dataset, keyword)
    if not found:
        return None
    if len(found) < count:
        raise BadSliceError(f"{keyword} has {len(found)} values, not {count}")
    try:
        converted = tuple(float(v) for v in found[:count])
    except (TypeError, ValueError):
        raise BadSliceError(f"{keyword} is not a number") from None
    if not all(math.isfinite(v) for v in converted):
        raise BadSliceError(f"{keyword} is not a finite number")
    return converted


def _required_text(dataset: pydicom.Dataset, keyword: str) -> str:
    found = values(dataset, keyword)
    text = _clean(found[0]) if found else ""
    if not text:
        raise BadSliceError(f"{keyword} is absent")
    return text


def _clean(value: Any) -> str:
    """One line of printable text: a cell of a table."""
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def _flatten(dataset: pydicom.Dataset) -> list[str]:
    cells = []
    for keyword, count in COLUMN_COUNTS.items():
        texts = [_clean(v) for v in values(dataset, keyword)[:count]]
        cells.extend(texts + [""] * (count - len(texts)))
    return cells
