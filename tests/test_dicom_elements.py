import io
import warnings
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data.data_manager
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from synthetic import make_dataset, make_dicom, without_preamble

from beam_pipelines.dicom_elements import (
    COLUMN_COUNTS,
    BadSliceError,
    Elements,
    read_elements,
    read_with_pydicom,
    walk,
)

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def texts(elements: Elements) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword in COLUMN_COUNTS:
        try:
            found[keyword] = elements.values(keyword)
        except BadSliceError as error:
            found[keyword] = str(error)
    return {**found, "syntax": elements.transfer_syntax_uid, "offset": elements.pixel_offset}


def assert_as_pydicom(data: bytes) -> None:
    walked = walk(data)
    assert walked is not None, "the walk gave up"
    assert texts(walked) == texts(read_with_pydicom(data))


def write(dataset: Dataset, syntax: str) -> bytes:
    """A file of a data set as it is, private elements and sequences included."""
    file = io.BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(
            file,
            dataset,
            enforce_file_format=True,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=True,
        )
    return file.getvalue()


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("padding", [-2000, 63536])
def test_values_are_pydicoms(syntax: str, signed: bool, padding: int):
    if signed == (padding < 0):
        assert_as_pydicom(make_dicom(syntax=syntax, signed=signed, PixelPaddingValue=padding))


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("representation", [0, 1, 2, 256])
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_padding_is_signed_as_its_vr_or_else_the_pixels_are(
    syntax: str, representation: int, vr: str
):
    dataset = make_dataset(PixelRepresentation=representation)
    dataset.add_new("PixelPaddingValue", vr, 2000)
    data = write(dataset, syntax).replace((2000).to_bytes(2, "little"), b"\x30\xf8", 1)
    assert_as_pydicom(data)


number_texts = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from(["-1024.000000", "+3", " 4.5", "1e3", "0", "", "nan", "1_0", "x"]),
)
ids = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=0, max_size=70)


@given(
    st.sampled_from(NATIVE),
    st.lists(number_texts, min_size=0, max_size=4),
    st.lists(number_texts, min_size=2, max_size=3),
    ids,
    ids,
    st.sampled_from(["1", "-3", "+7", " 12 ", "", "1.0", "1.5", "two"]),
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_as_pydicom_reads_it(
    syntax: str,
    center: list[str],
    position: list[str],
    patient_id: str,
    series_uid: str,
    instance_number: str,
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = make_dataset()
        for tag, vr, value in (
            (0x00281050, "DS", "\\".join(center)),
            (0x00200032, "DS", "\\".join(position)),
            (0x00100020, "LO", patient_id),
            (0x0020000E, "UI", series_uid),
            (0x00200013, "IS", instance_number),
        ):
            raw = value.encode() + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
            dataset[tag] = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(tag), vr, len(raw), raw, 0, syntax == ImplicitVRLittleEndian, True
            )
        data = write(dataset, syntax)
    walked = walk(data)
    if walked is not None:
        assert texts(walked) == texts(read_with_pydicom(data))
    assert texts(read_elements(data)) == texts(walked or read_with_pydicom(data))


@pytest.mark.parametrize("syntax", NATIVE)
def test_what_is_not_wanted_is_passed_over(syntax: str):
    dataset = make_dataset(AccessionNumber="4711")
    dataset.private_block(0x0011, "MAKER", create=True).add_new(1, "OB", bytes(70_000))
    assert_as_pydicom(write(dataset, syntax))
    assert "4711" not in str(texts(read_elements(write(dataset, syntax))))


@pytest.mark.parametrize("syntax", NATIVE)
def test_sequences_of_known_length_are_passed_over(syntax: str):
    dataset = make_dataset()
    item = Dataset()
    item.PatientID = "inside a sequence"
    dataset.OtherPatientIDsSequence = Sequence([item])
    assert_as_pydicom(write(dataset, syntax))


def test_sequences_of_unknown_length_are_pydicoms():
    dataset = make_dataset()
    dataset.OtherPatientIDsSequence = Sequence([Dataset()])
    dataset["OtherPatientIDsSequence"].is_undefined_length = True
    data = write(dataset, ExplicitVRLittleEndian)
    assert walk(data) is None
    assert read_elements(data).values("PatientID") == ["ID_patient1"]


@pytest.mark.parametrize(
    "data",
    [
        make_dicom(syntax=ExplicitVRBigEndian),
        make_dicom(syntax=DeflatedExplicitVRLittleEndian),
        make_dicom(compress=RLELossless),
        without_preamble(make_dicom()),
        make_dicom(omit=["PixelData"]),
        make_dicom(PatientID="M\u00fcller", SpecificCharacterSet="ISO_IR 100"),
        make_dicom()[:300],
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_pydicom(data: bytes):
    assert walk(data) is None


def test_a_data_set_that_denies_its_syntax_is_left_to_pydicom():
    data = make_dicom(syntax=ExplicitVRLittleEndian)
    denied = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    assert walk(denied) is None


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_a_damaged_header_is_read_as_pydicom_reads_it(changes: list[tuple[int, int]]):
    for good in (make_dicom(InstanceNumber=3), make_dicom(syntax=ImplicitVRLittleEndian)):
        header = len(good) - 2560
        data = bytearray(good)
        for place, value in changes:
            data[132 + place % (header - 132)] = value
        walked = walk(bytes(data))
        if walked is not None:
            assert texts(walked) == texts(read_with_pydicom(bytes(data)))


def test_pydicoms_own_files():
    root = Path(pydicom.data.data_manager.DATA_ROOT) / "test_files"
    num_walked = 0
    for path in sorted(root.rglob("*.dcm")):
        data = path.read_bytes()
        walked = walk(data)
        if walked is not None:
            assert texts(walked) == texts(read_with_pydicom(data)), path.name
            num_walked += 1
    assert num_walked >= 10
