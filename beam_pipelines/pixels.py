"""The pixels of a DICOM slice in Hounsfield units, whatever its transfer syntax."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from beam_pipelines import dicom
from beam_pipelines.dicom import BadSliceError

# Hounsfield units of air, for pixels outside the scanner's field of view.
AIR = -1000
# What many scanners write outside the field of view, PixelPaddingValue or not.
_PADDING = -2000
# A CT matrix is 512 x 512, seldom 1024; beyond this a header is damaged or hostile.
MAX_PIXELS = 4096 * 4096
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_LONG_VR = (b"OW", b"OB")


def decode_hounsfield(data: bytes) -> np.ndarray:
    """Decodes the pixels of a slice.

    Uncompressed little-endian slices, all of the RSNA archive, are read in place; everything else
    goes through pydicom's decoders (JPEG, JPEG lossless, JPEG-LS, JPEG 2000, RLE, deflated, big
    endian).

    Args:
        data: a whole DICOM file.

    Returns:
        int16 of shape (Rows, Columns), Hounsfield units, -1000 (air) where the file has padding.

    Raises:
        BadSliceError: the file is no single-frame greyscale CT slice, or its pixels are missing,
            cut short or damaged.
    """
    dataset, pixel_offset = dicom.read_dataset(data)
    if pixel_offset is None:
        raise BadSliceError("has no pixel data")
    rows, columns = int(dicom.number(dataset, "Rows")), int(dicom.number(dataset, "Columns"))
    _check_image(dataset, rows, columns)
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if syntax in _NATIVE and int(dicom.number(dataset, "BitsAllocated")) == 16:
        explicit = syntax == ExplicitVRLittleEndian
        stored = _native_pixels(data, pixel_offset, explicit, rows, columns)
    else:
        stored = _decode_with_pydicom(data, rows, columns)
    return to_hounsfield(
        stored,
        bits_stored=int(dicom.number(dataset, "BitsStored")),
        signed=dicom.number(dataset, "PixelRepresentation") == 1,
        slope=dicom.number(dataset, "RescaleSlope", 1.0),
        intercept=dicom.number(dataset, "RescaleIntercept", 0.0),
        padding=dicom.numbers(dataset, "PixelPaddingValue"),
    )


def _check_image(dataset: pydicom.Dataset, rows: int, columns: int) -> None:
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        raise BadSliceError(f"Rows x Columns is {rows} x {columns}, which no CT slice has")
    if dicom.number(dataset, "SamplesPerPixel", 1) != 1:
        raise BadSliceError("SamplesPerPixel is not 1: a colour image, not a CT slice")
    if dicom.number(dataset, "NumberOfFrames", 1) != 1:
        raise BadSliceError("NumberOfFrames is not 1: give one slice a file")
    photometric = dicom.values(dataset, "PhotometricInterpretation")
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


def to_hounsfield(
    stored: np.ndarray,
    bits_stored: int,
    signed: bool,
    slope: float,
    intercept: float,
    padding: Sequence[float],
) -> np.ndarray:
    """Converts stored values to Hounsfield units: value * slope + intercept (PS3.3 C.11.1.1.2).

    Args:
        stored: int16 (Rows, Columns), the 16 bits of each pixel.
        bits_stored: BitsStored; bits above it are not part of the value.
        signed: PixelRepresentation is 1.
        slope: RescaleSlope.
        intercept: RescaleIntercept.
        padding: PixelPaddingValue, if any.

    Returns:
        int16 of the same shape; padding is air. Values beyond 16 bits are clipped.

    Raises:
        BadSliceError: `bits_stored` is not from 1 to 16.
    """
    if not 1 <= bits_stored <= 16:
        raise BadSliceError(f"BitsStored is {bits_stored}, not from 1 to 16")
    unused = 16 - bits_stored
    bits = stored.view(np.uint16) << np.uint16(unused) if unused else stored.view(np.uint16)
    if signed:
        values = (bits.view(np.int16) >> np.int16(unused)).astype(np.int32)
    else:
        values = (bits >> np.uint16(unused)).astype(np.int32)
    outside = _is_padding(stored, values, [_PADDING, *padding])
    if bits_stored == 12 and not signed and intercept in (0.0, 1.0):
        # 123 slices of the archive wrapped at 4096 and lost their intercept; this is the known
        # repair (fastai's `fix_pxrepr`).
        values = (values + 1000) & 4095
        intercept = -1000.0
    if slope == 1.0 and abs(intercept) < 1 << 30 and intercept.is_integer():
        hounsfield = values + int(intercept)
    else:
        hounsfield = np.rint(values * np.float64(slope) + intercept)
    hounsfield = np.clip(hounsfield, -(1 << 15), (1 << 15) - 1).astype(np.int16)
    hounsfield[outside] = AIR
    return hounsfield


def _is_padding(stored: np.ndarray, values: np.ndarray, padding: Sequence[float]) -> np.ndarray:
    """Where a pixel is padding, which scanners write in BitsStored or in all 16 bits."""
    found = np.zeros(stored.shape, bool)
    for value in map(int, padding):
        found |= stored == np.uint16(value & 0xFFFF).view(np.int16)
        found |= values == value
    return found
