"""The pixels of a DICOM slice in Hounsfield units, whatever its transfer syntax."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from beam_pipelines import dicom
from beam_pipelines.dicom import BadSliceError
from beam_pipelines.dicom_elements import Elements, read_elements

# Hounsfield units of air, for pixels outside the scanner's field of view.
AIR = -1000
# What many scanners write outside the field of view, PixelPaddingValue or not.
_PADDING = -2000
# A CT matrix is 512 x 512, seldom 1024; beyond this a header is damaged or hostile.
MAX_PIXELS = 4096 * 4096
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_LONG_VR = (b"OW", b"OB")


@dataclass(frozen=True)
class Rescale:
    """How the stored 16 bits of a pixel become Hounsfield units.

    Few of these occur in an archive (five in RSNA's), so a table of all 65,536 stored values can
    take the place of arithmetic on every pixel.

    Attributes:
        bits_stored: BitsStored, from 1 to 16; bits above it are not part of the value.
        signed: PixelRepresentation is 1.
        slope: RescaleSlope.
        intercept: RescaleIntercept.
        padding: PixelPaddingValue, if any.
    """

    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.bits_stored <= 16:
            raise BadSliceError(f"BitsStored is {self.bits_stored}, not from 1 to 16")


def decode_hounsfield(data: bytes) -> np.ndarray:
    """Decodes the pixels of a slice.

    Args:
        data: a whole DICOM file.

    Returns:
        int16 of shape (Rows, Columns), Hounsfield units, -1000 (air) where the file has padding.

    Raises:
        BadSliceError: see `read_stored`.
    """
    return to_hounsfield(*read_stored(data))


def read_stored(data: bytes) -> tuple[np.ndarray, Rescale]:
    """Reads the pixels of a slice as they are stored.

    Uncompressed little-endian slices, all of the RSNA archive, are read in place; everything else
    goes through pydicom's decoders (JPEG, JPEG lossless, JPEG-LS, JPEG 2000, RLE, deflated, big
    endian).

    Args:
        data: a whole DICOM file.

    Returns:
        int16 of shape (Rows, Columns), the 16 bits of each pixel, and what they mean.

    Raises:
        BadSliceError: the file is no single-frame greyscale CT slice, or its pixels are missing,
            cut short or damaged.
    """
    elements = read_elements(data)
    if elements.pixel_offset is None:
        raise BadSliceError("has no pixel data")
    rows, columns = int(dicom.number(elements, "Rows")), int(dicom.number(elements, "Columns"))
    _check_image(elements, rows, columns)
    syntax = elements.transfer_syntax_uid
    if syntax in _NATIVE and dicom.number(elements, "BitsAllocated") == 16:
        explicit = syntax == ExplicitVRLittleEndian
        stored = _native_pixels(data, elements.pixel_offset, explicit, rows, columns)
    else:
        stored = _decode_with_pydicom(data, rows, columns)
    return stored, Rescale(
        bits_stored=int(dicom.number(elements, "BitsStored")),
        signed=dicom.number(elements, "PixelRepresentation") == 1,
        slope=dicom.number(elements, "RescaleSlope", 1.0),
        intercept=dicom.number(elements, "RescaleIntercept", 0.0),
        # It has one value (PS3.3 C.7.5.1.1.2); a hostile file may have a million.
        padding=dicom.numbers(elements, "PixelPaddingValue")[:1],
    )


def _check_image(elements: Elements, rows: int, columns: int) -> None:
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        raise BadSliceError(f"Rows x Columns is {rows} x {columns}, which no CT slice has")
    if dicom.number(elements, "SamplesPerPixel", 1) != 1:
        raise BadSliceError("SamplesPerPixel is not 1: a colour image, not a CT slice")
    if dicom.number(elements, "NumberOfFrames", 1) != 1:
        raise BadSliceError("NumberOfFrames is not 1: give one slice a file")
    photometric = elements.values("PhotometricInterpretation")
    if photometric not in (["MONOCHROME2"], []):
        raise BadSliceError("PhotometricInterpretation is not MONOCHROME2")


def _native_pixels(data: bytes, offset: int, explicit: bool, rows: int, columns: int) -> np.ndarray:
    """A view of the 16-bit pixels whose element starts at `offset`; int16 (rows, columns)."""
    has_long_vr = explicit and data[offset + 4 : offset + 6] in _LONG_VR
    start = offset + (12 if has_long_vr else 8)
    expected = rows * columns * 2
    found = len(data) - start
    if found < expected:
        raise BadSliceError(f"pixel data is cut short: {max(found, 0)} of {expected} bytes")
    return np.frombuffer(data, "<i2", rows * columns, start).reshape(rows, columns)


def _decode_with_pydicom(data: bytes, rows: int, columns: int) -> np.ndarray:
    """Decoded pixels as int16; 16-bit unsigned values keep their bits."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pydicom.dcmread(io.BytesIO(data)).pixel_array
    except Exception as error:
        # The decoders raise many kinds, and their texts may quote the header.
        raise BadSliceError(f"pixels cannot be decoded ({type(error).__name__})") from None
    if pixels.shape != (rows, columns):
        raise BadSliceError(f"pixels have shape {pixels.shape}, not {(rows, columns)}")
    if pixels.dtype.itemsize > 2:
        low, high = int(pixels.min()), int(pixels.max())
        if low < -(1 << 15) or high >= 1 << 16:
            raise BadSliceError(f"pixel values from {low} to {high} do not fit into 16 bits")
    return pixels.astype(np.int16)


def to_hounsfield(stored: np.ndarray, rescale: Rescale) -> np.ndarray:
    """Converts stored values to Hounsfield units: value * slope + intercept (PS3.3 C.11.1.1.2).

    Args:
        stored: int16 of any shape, the 16 bits of each pixel.
        rescale: what they mean.

    Returns:
        int16 of the same shape; padding is air. Values beyond 16 bits are clipped.
    """
    bits_stored, intercept = rescale.bits_stored, rescale.intercept
    unused = 16 - bits_stored
    bits = stored.view(np.uint16) << np.uint16(unused) if unused else stored.view(np.uint16)
    if rescale.signed:
        values = (bits.view(np.int16) >> np.int16(unused)).astype(np.int32)
    else:
        values = (bits >> np.uint16(unused)).astype(np.int32)
    outside = _is_padding(stored, values, (_PADDING, *rescale.padding))
    if bits_stored == 12 and not rescale.signed and intercept in (0.0, 1.0):
        # 123 slices of the archive wrapped at 4096 and lost their intercept; this is the known
        # repair (fastai's `fix_pxrepr`).
        values = (values + 1000) & 4095
        intercept = -1000.0
    if rescale.slope == 1.0 and abs(intercept) < 1 << 30 and intercept.is_integer():
        hounsfield = values + int(intercept)
    else:
        hounsfield = np.rint(values * np.float64(rescale.slope) + intercept)
    hounsfield = np.clip(hounsfield, -(1 << 15), (1 << 15) - 1).astype(np.int16)
    hounsfield[outside] = AIR
    return hounsfield


def _is_padding(stored: np.ndarray, values: np.ndarray, padding: tuple[float, ...]) -> np.ndarray:
    """Where a pixel is padding, which scanners write in BitsStored or in all 16 bits."""
    found = np.zeros(stored.shape, bool)
    for value in map(int, padding):
        found |= stored == np.uint16(value & 0xFFFF).view(np.int16)
        found |= values == value
    return found
