import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data.data_manager
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from synthetic import make_dataset, make_dicom, random_hounsfield

from beam_pipelines.dicom import BadSliceError, read_header
from beam_pipelines.pixels import AIR, Rescale, decode_hounsfield

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
SYNTAXES = [*NATIVE, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
VARIANTS = [(16, True, -1024), (12, False, -1024), (12, False, -1000), (12, True, 0), (16, True, 0)]


def hounsfield(stored: list[int], **values: Any) -> list[int]:
    """Decodes one row of stored values."""
    return decode_hounsfield(make_dicom(np.array([stored]), **values))[0].tolist()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("bits_stored", "signed", "intercept"), VARIANTS)
def test_every_header_variant(syntax: str, bits_stored: int, signed: bool, intercept: int):
    expected = random_hounsfield(1)
    stored = expected.astype(np.int32) - intercept
    data = make_dicom(
        stored & ((1 << bits_stored) - 1) if bits_stored < 16 else stored,
        syntax=syntax,
        bits_stored=bits_stored,
        signed=signed,
        RescaleIntercept=str(intercept),
    )
    found = decode_hounsfield(data)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize(("bits_stored", "signed", "intercept"), [VARIANTS[0], VARIANTS[1]])
def test_compressed_slices(syntax: str, bits_stored: int, signed: bool, intercept: int):
    expected = random_hounsfield(1)
    data = make_dicom(
        expected - intercept,
        compress=syntax,
        bits_stored=bits_stored,
        signed=signed,
        RescaleIntercept=str(intercept),
    )
    np.testing.assert_array_equal(decode_hounsfield(data), expected)


@pytest.mark.parametrize(
    ("stored", "values", "expected"),
    [
        # value * slope + intercept
        ([0, 1024, 1064], {"RescaleIntercept": "-1024"}, [-1024, 0, 40]),
        ([-1000, 40], {"RescaleIntercept": "0"}, [-1000, 40]),
        ([10, 11], {"RescaleSlope": "2.5", "RescaleIntercept": "0.5"}, [26, 28]),
        ([7], {"omit": ["RescaleSlope", "RescaleIntercept"]}, [7]),
        # beyond int16
        ([32767], {"RescaleIntercept": "1024"}, [32767]),
        ([-32768], {"RescaleIntercept": "-1024"}, [-32768]),
        ([65535], {"signed": False, "RescaleIntercept": "0"}, [32767]),
        ([1, 2], {"RescaleIntercept": "1e30"}, [32767, 32767]),
        # padding, named or not
        ([-2000, 0], {}, [AIR, -1024]),
        ([-3024, -2000, 0], {"PixelPaddingValue": -3024}, [AIR, AIR, -1024]),
        ([63536, 1024], {"signed": False}, [AIR, 0]),
        ([63000, 1024], {"signed": False, "PixelPaddingValue": 63000}, [AIR, 0]),
        # twelve bits: the sign is bit 11, and what is above is no part of the value
        ([0xFFF, 0x800, 0x7FF], {"bits_stored": 12, "RescaleIntercept": "0"}, [-1, -2048, 2047]),
        ([0x5001, 0xF7FF - 65536], {"bits_stored": 12, "RescaleIntercept": "0"}, [1, 2047]),
        ([0xF400, 0x0400], {"bits_stored": 12, "signed": False}, [0, 0]),
        # twelve bits and padding, which is written in 12 bits or in 16
        ([0x830, 0xF830 - 65536, 5], {"bits_stored": 12, "RescaleIntercept": "0"}, [AIR, AIR, 5]),
        ([0xF830, 1024], {"bits_stored": 12, "signed": False}, [AIR, 0]),
    ],
)
def test_golden_values(stored: list[int], values: dict, expected: list[int]):
    assert hounsfield(stored, **values) == expected


@pytest.mark.parametrize("intercept", ["0", "1", "0.000000"])
def test_the_wrapped_slices_are_repaired(intercept: str):
    """Unsigned, 12 bits and no intercept: (value + 1000) modulo 4096, less 1000."""
    values = {"bits_stored": 12, "signed": False, "RescaleIntercept": intercept}
    assert hounsfield([0, 40, 3095, 3096, 4095], **values) == [0, 40, 3095, -1000, -1]


@pytest.mark.parametrize(
    "values",
    [
        {"bits_stored": 12, "signed": True, "RescaleIntercept": "0"},
        {"bits_stored": 16, "signed": False, "RescaleIntercept": "0"},
        {"bits_stored": 12, "signed": False, "RescaleIntercept": "-1000"},
    ],
)
def test_no_other_slice_is_repaired(values: dict):
    intercept = int(values["RescaleIntercept"])
    assert hounsfield([0, 2047], **values) == [intercept, 2047 + intercept]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 32)])
def test_any_matrix_size(shape: tuple[int, int]):
    expected = random_hounsfield(2, *shape)
    np.testing.assert_array_equal(decode_hounsfield(make_dicom(expected + 1024)), expected)


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_pixel_data_of_either_vr(vr: str):
    dataset = make_dataset(random_hounsfield(3) + 1024)
    dataset["PixelData"].VR = vr
    file = io.BytesIO()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    np.testing.assert_array_equal(decode_hounsfield(file.getvalue()), random_hounsfield(3))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"omit": ["PixelData"]}, "has no pixel data"),
        ({"omit": ["Rows"]}, "Rows is absent"),
        ({"Rows": 33}, "pixel data is cut short: 2560 of 2640 bytes"),
        ({"Rows": 0}, "Rows x Columns is 0 x 40, which no CT slice has"),
        ({"Rows": 65535, "Columns": 65535}, "Rows x Columns is 65535 x 65535, which no CT slice"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel is not 1: a colour image, not a CT slice"),
        ({"NumberOfFrames": 2}, "NumberOfFrames is not 1: give one slice a file"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "PhotometricInterpretation is not MONO"),
        ({"BitsStored": 0}, "BitsStored is 0, not from 1 to 16"),
        ({"BitsStored": 17}, "BitsStored is 17, not from 1 to 16"),
        ({"omit": ["PixelRepresentation"]}, "PixelRepresentation is absent"),
    ],
)
def test_what_cannot_be_decoded_is_said(values: dict, reason: str):
    with pytest.raises(BadSliceError) as error:
        decode_hounsfield(make_dicom(**values))
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("kept", [0, 1, 1000, 2559])
def test_pixels_that_are_cut_short(syntax: str, kept: int):
    data = make_dicom(syntax=syntax)
    with pytest.raises(BadSliceError, match=f"pixel data is cut short: {kept} of 2560 bytes"):
        decode_hounsfield(data[: len(data) - 2560 + kept])


@pytest.mark.parametrize("compress", [RLELossless, JPEG2000Lossless])
def test_compressed_pixels_that_are_cut_short(compress: str):
    data = make_dicom(compress=compress)
    with pytest.raises(BadSliceError, match=r"pixels cannot be decoded|not a readable"):
        decode_hounsfield(data[: len(data) // 2])


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=50)
def test_damage_is_a_bad_slice_and_no_crash(changes: list[tuple[int, int]]):
    for good in DAMAGED:
        data = bytearray(good)
        for place, value in changes:
            data[132 + place % (len(data) - 132)] = value
        for use in (read_header, decode_hounsfield):
            try:
                use(bytes(data))
            except BadSliceError as error:
                assert "\n" not in str(error)


DAMAGED = [
    make_dicom(np.zeros((2, 2)), PixelPaddingValue=-2000, InstanceNumber=3),
    make_dicom(np.zeros((2, 2)), PixelPaddingValue=-2000, syntax=ImplicitVRLittleEndian),
]


@pytest.mark.parametrize("bits_stored", [0, 17, -1])
def test_bits_stored_is_checked(bits_stored: int):
    with pytest.raises(BadSliceError, match="BitsStored"):
        Rescale(bits_stored, signed=True, slope=1.0, intercept=0.0)


def greyscale_files() -> list[Path]:
    """pydicom's own test files of one greyscale frame in 16 bits or less."""
    root = Path(pydicom.data.data_manager.DATA_ROOT) / "test_files"
    found = []
    for path in sorted(root.rglob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=True)
            except Exception:
                continue
        if (
            dataset.get("SamplesPerPixel") == 1
            and dataset.get("NumberOfFrames", 1) in (1, None)
            and dataset.get("PhotometricInterpretation") == "MONOCHROME2"
            and dataset.get("BitsAllocated", 64) <= 16
        ):
            found.append(path)
    return found


def test_pydicoms_own_files():
    """Every syntax that pydicom decodes here gives the same values, but for padding."""
    syntaxes = set()
    for path in greyscale_files():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            try:
                stored = dataset.pixel_array.astype(np.float64)
            except Exception:
                with pytest.raises(BadSliceError):
                    decode_hounsfield(path.read_bytes())
                continue
        padding = stored == dataset.get("PixelPaddingValue", -2000)
        expected = stored * (dataset.get("RescaleSlope") or 1) + (
            dataset.get("RescaleIntercept") or 0
        )
        expected = np.where(padding | (stored == -2000), AIR, np.clip(expected, -32768, 32767))
        np.testing.assert_array_equal(
            decode_hounsfield(path.read_bytes()), np.rint(expected), err_msg=path.name
        )
        syntaxes.add(dataset.file_meta.TransferSyntaxUID.name)
    assert len(syntaxes) >= 9
