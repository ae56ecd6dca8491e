from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from synthetic import make_dicom, tilted, write_folder, write_zip

from beam_pipelines import metadata
from beam_pipelines.archive import Archive, open_archive
from beam_pipelines.dicom import BadSliceError, read_header
from beam_pipelines.errors import UserError
from beam_pipelines.layout import DataLayout
from beam_pipelines.member import BadMemberError, Member
from beam_pipelines.metadata import (
    MetadataBuilder,
    member_ranges,
    read_member_header,
)
from beam_pipelines.slice_references import COLUMNS, SliceReference, parse_references


def archive_of(tmp_path: Path, data: bytes, name: str = "stage_2_train/a.dcm") -> Archive:
    return open_archive(str(write_zip(tmp_path / "a.zip", {name: data})))


@pytest.mark.parametrize("num_members", [0, 1, 4095, 4096, 4097, 10000])
def test_ranges_cover_every_member_once(num_members: int):
    ranges = member_ranges(num_members)
    assert [i for r in ranges for i in range(r.start, r.end)] == list(range(num_members))
    assert [r.part for r in ranges] == list(range(len(ranges)))
    assert all(0 < r.end - r.start <= 4096 for r in ranges)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"syntax": ImplicitVRLittleEndian},
        {"syntax": DeflatedExplicitVRLittleEndian},
        {"compress": RLELossless},
        {"ImageComments": "x" * 5000},
        {"ImageComments": "x" * 300_000},
    ],
    ids=["explicit", "implicit", "deflated", "rle", "longer than 4 KB", "longer than 256 KB"],
)
def test_header_from_the_beginning_of_a_member(tmp_path: Path, values: dict):
    data = make_dicom(**values)
    archive = archive_of(tmp_path, data)
    assert read_member_header(archive, archive.member(0)) == read_header(data)


def test_pixels_are_not_read_for_the_header(tmp_path: Path):
    archive = archive_of(tmp_path, make_dicom())
    archive.read = None  # type: ignore[method-assign, assignment]
    member = archive.member(0)._replace(size=1 << 20)
    assert read_member_header(archive, member).sop_instance_uid == "ID_000000001"


def test_what_cannot_be_used_is_said(tmp_path: Path):
    for data, reason in [
        (make_dicom(omit=["PixelData"]), "has no pixel data"),
        (make_dicom(omit=["PatientID"]), "PatientID is absent"),
        (b"text", "not a readable DICOM header"),
    ]:
        archive = archive_of(tmp_path, data)
        with pytest.raises(BadSliceError, match=reason):
            read_member_header(archive, archive.member(0))
    archive = archive_of(tmp_path, make_dicom(), "a\nb.dcm")
    with pytest.raises(BadMemberError, match="its name holds characters that cannot be printed"):
        read_member_header(archive, archive.member(0))


def row_of(tmp_path: Path, data: bytes, name: str = "stage_2_train/a.dcm") -> tuple[str, Member]:
    """The row that the builder writes of a slice, without its subset, and the member."""
    path = write_zip(tmp_path / "a.zip", {name: data})
    builder = MetadataBuilder(str(path), str(tmp_path / "parts"), 1)
    builder.setup()
    receipt = builder.build(member_ranges(1)[0])
    assert receipt["quarantined"] == []
    (line,) = (tmp_path / "parts" / receipt["name"]).read_text().splitlines()
    return line.split(",", 1)[1], open_archive(str(path)).member(0)


def test_a_row_is_read_back_as_a_reference(tmp_path: Path):
    data = make_dicom(
        PatientID='p, "one"',
        InstanceNumber=12,
        PixelSpacing=[0.5, 0.7],
        ImageOrientationPatient=[f"{v:.6f}" for v in tilted(20)],
    )
    line, member = row_of(tmp_path, data, "stage_2_train/ä, b.dcm")
    (reference,) = parse_references([line], "train")
    assert reference == SliceReference(
        image_id="ID_000000001",
        patient_id='p, "one"',
        study_instance_uid="ID_study1",
        series_instance_uid="ID_series1",
        subset="train",
        instance_number=12,
        image_position_patient=(-125.0, -110.0, 42.5),
        image_orientation_patient=(1.0, 0.0, 0.0, 0.0, 0.939693, 0.34202),
        pixel_spacing_mm=0.6,
        member=member,
    )


def test_what_a_slice_lacks_is_none_or_zero(tmp_path: Path):
    line, _ = row_of(tmp_path, make_dicom(omit=["PixelSpacing"]))
    (reference,) = parse_references([line], "test")
    assert (reference.instance_number, reference.pixel_spacing_mm) == (None, 0.0)
    assert reference.subset == "test"


def test_no_column_names_a_person():
    for word in ("Name", "Birth", "Age", "Sex", "Address", "Institution", "Physician", "Date"):
        assert not [c for c in COLUMNS if word in c and not c.startswith("member_")]


def test_a_finished_part_is_used_again(tmp_path: Path):
    files = {f"stage_2_{s}/{i}.dcm": make_dicom() for i, s in enumerate(["train", "test"])}
    path = write_folder(tmp_path / "archive", {**files, "stage_2_train/bad.dcm": b"bad"})
    builder = MetadataBuilder(str(path), str(tmp_path / "parts"), 1)
    builder.setup()
    (task,) = member_ranges(3)
    first = builder.build(task)
    assert (first["slices_in"], first["train"], first["test"]) == (3, 1, 1)
    assert [bad.member_name for bad in first["quarantined"]] == ["stage_2_train/bad.dcm"]
    again = builder.build(task)
    assert again.pop("reused")
    assert again == {**first, "quarantined": [list(bad) for bad in first["quarantined"]]}


def test_missing_metadata_is_a_user_error(tmp_path: Path):
    with pytest.raises(UserError) as error:
        metadata.read_metadata_manifest(DataLayout(str(tmp_path)))
    assert str(error.value) == (
        f"{tmp_path}/metadata_manifest.json: no such file; run python -m "
        "beam_pipelines.extract_metadata first"
    )
