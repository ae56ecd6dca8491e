"""The elements before a DICOM file's pixel data: an allow-list of keywords, as text.

Uncompressed little-endian files, all of the RSNA archive, are walked here element by element: 17
microseconds a header, where pydicom takes 290. Whatever this walk does not know for certain, such
as another transfer syntax, a sequence of undefined length or a text that is not plain ASCII,
pydicom reads; both give the same values, which the tests hold them to.
"""

import io
import struct
import warnings
from typing import Any, Protocol

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

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
_KEYWORDS = list(COLUMN_COUNTS)
_PIXEL_DATA_LITTLE, _PIXEL_DATA_BIG = b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"
# Group 7FE0 starts with float pixels and offset tables, which no CT slice here has.
_PIXEL_GROUP = 0x7FE0
_META_GROUP = 0x0002
_TRANSFER_SYNTAX_UID = 0x00020010
_PREAMBLE = 128

# Explicit VRs by the form of their length (PS3.5 7.1.2): two bytes, or two reserved and four.
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_EXPLICIT = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<I")

_TAGS = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in _KEYWORDS}
_VRS = {keyword: dictionary_VR(keyword) for keyword in _KEYWORDS}
# tag -> the explicit VRs that the walk takes for it; PixelPaddingValue is "US or SS".
_WANTED = {
    tag: frozenset(vr.encode() for vr in _VRS[keyword].split(" or "))
    for keyword, tag in _TAGS.items()
}
_PADDING = _TAGS["PixelPaddingValue"]
# Where the walk notes that element's VR; no tag is negative.
_PADDING_VR = -_PADDING
_WANTED[_TRANSFER_SYNTAX_UID] = frozenset([b"UI"])
_BINARY = frozenset(keyword for keyword, vr in _VRS.items() if "US" in vr)
_INTEGER_TEXT = frozenset(tag for keyword, tag in _TAGS.items() if _VRS[keyword] == "IS")
_TEXT = frozenset(tag for keyword, tag in _TAGS.items() if keyword not in _BINARY)


class BadSliceError(Exception):
    """A slice that cannot be used, with the reason."""


class Elements(Protocol):
    """The allow-listed elements of one file.

    Attributes:
        transfer_syntax_uid: TransferSyntaxUID, None where the file has none.
        pixel_offset: offset of the pixel data element; None where the data ends before it. A
            deflated data set has no such offset: it is given the data's length, once it is whole.
    """

    transfer_syntax_uid: str | None
    pixel_offset: int | None

    def values(self, keyword: str) -> list[str]:
        """The values of an element as text, empty where it is absent or empty.

        Raises:
            BadSliceError: the element cannot be converted to its type.
        """


def read_elements(data: bytes) -> Elements:
    """Reads the allow-listed elements before the pixel data.

    Args:
        data: the file, or its beginning.

    Raises:
        BadSliceError: this is no DICOM file or its header is damaged.
    """
    return walk(data) or read_with_pydicom(data)


class WalkedElements:
    """Elements as the walk finds them; bytes become text when they are asked for."""

    def __init__(
        self, found: dict[int, bytes], syntax: str, pixel_offset: int, signed_padding: bool
    ) -> None:
        self.transfer_syntax_uid: str | None = syntax
        self.pixel_offset: int | None = pixel_offset
        self._found = found
        self._signed_padding = signed_padding

    def values(self, keyword: str) -> list[str]:
        """The values of an element as text, empty where it is absent or empty."""
        value = self._found.get(_TAGS[keyword])
        if not value:
            return []
        if keyword in _BINARY:
            code = "h" if keyword == "PixelPaddingValue" and self._signed_padding else "H"
            return [str(v) for v in struct.unpack(f"<{len(value) // 2}{code}", value)]
        text = value.decode("ascii").strip("\0 ")
        return [part.strip() for part in text.split("\\")] if text else []


def walk(data: bytes) -> WalkedElements | None:
    """Walks the elements of an uncompressed little-endian file up to its pixel data.

    Args:
        data: the file, or its beginning.

    Returns:
        The elements, or None where the file is anything but the plain case or `data` ends before
        the pixel data: then `read_with_pydicom` has the word.
    """
    if data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    meta: dict[int, bytes] = {}
    position = _walk_to(_META_GROUP, data, _PREAMBLE + 4, True, meta)
    syntax = meta.get(_TRANSFER_SYNTAX_UID, b"").rstrip(b"\0 ").decode("ascii", "replace")
    if position is None or syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        return None
    explicit = syntax == ExplicitVRLittleEndian
    # A data set that is explicit after all: pydicom looks at the same two bytes.
    if not explicit and bytes(data[position + 4 : position + 6]) in _SHORT_VRS | _LONG_VRS:
        return None
    found: dict[int, bytes] = {}
    position = _walk_to(_PIXEL_GROUP - 1, data, position, explicit, found)
    if position is None or data[position : position + 4] != _PIXEL_DATA_LITTLE:
        return None
    if not _is_plain(found):
        return None
    return WalkedElements(found, syntax, position, _is_padding_signed(found))


def _walk_to(
    last_group: int, data: bytes, position: int, explicit: bool, found: dict[int, bytes]
) -> int | None:
    """Collects wanted elements up to a group; the position after it, None where in doubt."""
    before, end = 0, len(data)
    while position + 8 <= end:
        group, element, vr, length = _EXPLICIT.unpack_from(data, position)
        if group > last_group:
            return position
        tag, start = group << 16 | element, position + 8
        if not explicit:
            length = _LENGTH.unpack_from(data, position + 4)[0]
        elif vr in _LONG_VRS:
            if position + 12 > end:
                return None
            length, start = _LENGTH.unpack_from(data, start)[0], position + 12
        elif vr not in _SHORT_VRS:
            return None
        position = start + length
        if tag <= before or position > end:
            return None
        before = tag
        if tag in _WANTED:
            if explicit and vr not in _WANTED[tag]:
                return None
            found[tag] = data[start:position]
            if tag == _PADDING and explicit:
                found[_PADDING_VR] = vr
    return None


def _is_padding_signed(found: dict[int, bytes]) -> bool:
    """PixelPaddingValue is US or SS: as it says itself, else as PixelRepresentation does."""
    if _PADDING_VR in found:
        return found[_PADDING_VR] == b"SS"
    return found.get(_TAGS["PixelRepresentation"], b"\0\0") != b"\0\0"


def _is_plain(found: dict[int, bytes]) -> bool:
    """Whether every value is of the kind that `WalkedElements.values` converts as pydicom does."""
    if _PADDING in found and not found.get(_TAGS["PixelRepresentation"]):
        return False
    for tag, value in found.items():
        if tag not in _TEXT:
            if len(value) % 2:
                return False
            continue
        text = value.rstrip(b"\0 ")
        if not (text.isascii() and text.decode("ascii").isprintable()):
            return False
        if tag in _INTEGER_TEXT and text and not text.strip().lstrip(b"+-").isdigit():
            return False
    return True


class PydicomElements:
    """Elements as pydicom reads them."""

    def __init__(self, dataset: pydicom.FileDataset, pixel_offset: int | None) -> None:
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        self.transfer_syntax_uid: str | None = None if syntax is None else str(syntax)
        self.pixel_offset = pixel_offset
        self._dataset = dataset

    def values(self, keyword: str) -> list[str]:
        """The values of an element as text, empty where it is absent or empty.

        Raises:
            BadSliceError: the element cannot be converted to its type.
        """
        try:
            value = self._dataset.get(keyword)
        except Exception as error:
            raise BadSliceError(f"{keyword} is malformed ({type(error).__name__})") from None
        if value is None or value == "":
            return []
        many: list[Any] = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
        return [_clean(v) for v in many]


def _clean(value: Any) -> str:
    """One line of printable text: a cell of a table."""
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def read_with_pydicom(data: bytes) -> PydicomElements:
    """Reads the elements of any file that pydicom can read.

    Raises:
        BadSliceError: pydicom cannot.
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
        return PydicomElements(dataset, len(data))
    offset = stream.tell()
    reached = data[offset : offset + 4] in (_PIXEL_DATA_LITTLE, _PIXEL_DATA_BIG)
    return PydicomElements(dataset, offset if reached else None)
