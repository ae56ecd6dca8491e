"""The header of a DICOM slice: typed values of an allow-list, with nothing that names a person.

What is wrong with a slice raises BadSliceError, whose text is a reason for the quarantine file and
never holds a value of the header outside the allow-list.
"""

import math
from dataclasses import dataclass

from beam_pipelines.dicom_elements import (
    COLUMN_COUNTS,
    BadSliceError,
    Elements,
    read_elements,
)

HEADER_COLUMNS = tuple(
    keyword if count == 1 else f"{keyword}_{i}"
    for keyword, count in COLUMN_COUNTS.items()
    for i in range(count)
)


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


def read_header(data: bytes) -> Header | None:
    """Reads a slice's header from a file's beginning.

    Returns:
        The header, or None where `data` ends before the pixel data: then give more of the file.

    Raises:
        BadSliceError: the header is damaged, or a value that the pipeline cannot do without is
            absent or malformed.
    """
    elements = read_elements(data)
    return None if elements.pixel_offset is None else parse_header(elements)


def parse_header(elements: Elements) -> Header:
    """Checks and converts the values of a header.

    Raises:
        BadSliceError: names the keyword that is absent or malformed.
    """
    position = _numbers(elements, "ImagePositionPatient", 3)
    orientation = _numbers(elements, "ImageOrientationPatient", 6)
    if position is None or orientation is None:
        keyword = "ImagePositionPatient" if position is None else "ImageOrientationPatient"
        raise BadSliceError(f"{keyword} is absent: the slice has no place in its series")
    instance_number = _numbers(elements, "InstanceNumber", 1)
    return Header(
        sop_instance_uid=_required_text(elements, "SOPInstanceUID"),
        patient_id=_required_text(elements, "PatientID"),
        study_instance_uid=_required_text(elements, "StudyInstanceUID"),
        series_instance_uid=_required_text(elements, "SeriesInstanceUID"),
        instance_number=None if instance_number is None else int(instance_number[0]),
        image_position_patient=position,
        image_orientation_patient=orientation,
        pixel_spacing=_numbers(elements, "PixelSpacing", 2),
        columns=tuple(_flatten(elements)),
    )


def number(elements: Elements, keyword: str, default: float | None = None) -> float:
    """The first value of an element as a finite number.

    Raises:
        BadSliceError: it is malformed, or absent without a default.
    """
    found = numbers(elements, keyword)
    if found:
        return found[0]
    if default is None:
        raise BadSliceError(f"{keyword} is absent")
    return default


def numbers(elements: Elements, keyword: str) -> tuple[float, ...]:
    """All values of an element as finite numbers; none where it is absent or empty.

    Raises:
        BadSliceError: one is malformed.
    """
    return _finite(elements.values(keyword), keyword)


def _numbers(elements: Elements, keyword: str, count: int) -> tuple[float, ...] | None:
    """The first `count` values; None where there are none at all."""
    found = elements.values(keyword)
    if not found:
        return None
    if len(found) < count:
        raise BadSliceError(f"{keyword} has {len(found)} values, not {count}")
    return _finite(found[:count], keyword)


def _finite(texts: list[str], keyword: str) -> tuple[float, ...]:
    try:
        converted = tuple(map(float, texts))
    except ValueError:
        raise BadSliceError(f"{keyword} is not a number") from None
    if not all(map(math.isfinite, converted)):
        raise BadSliceError(f"{keyword} is not a finite number")
    return converted


def _required_text(elements: Elements, keyword: str) -> str:
    found = elements.values(keyword)
    if not found or not found[0]:
        raise BadSliceError(f"{keyword} is absent")
    return found[0]


def _flatten(elements: Elements) -> list[str]:
    cells: list[str] = []
    for keyword, count in COLUMN_COUNTS.items():
        texts = elements.values(keyword)[:count]
        cells += texts
        cells += [""] * (count - len(texts))
    return cells
