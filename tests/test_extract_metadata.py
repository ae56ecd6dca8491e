import csv
import json
import random
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from synthetic import (
    ROOT,
    archive_files,
    make_dicom,
    make_series,
    make_slices,
    write_folder,
    write_zip,
)

from beam_pipelines.errors import UserError
from beam_pipelines.extract_metadata import run
from beam_pipelines.layout import DataLayout
from beam_pipelines.quarantine import read_quarantine

TRAIN = f"{ROOT}/stage_2_train"


def extract(archive: Path, data_dir: Path, *flags: str) -> None:
    run(["--archive", str(archive), "--data_dir", str(data_dir), *flags])


def rows(data_dir: Path, subset: str) -> list[dict[str, str]]:
    with (data_dir / f"{subset}_metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_slice(described: Path):
    slices = make_slices()
    for subset in ("train", "test"):
        found = {row["SOPInstanceUID"]: row for row in rows(described, subset)}
        expected = {s.image_id: s for s in slices if s.subset == subset}
        assert found.keys() == expected.keys()
        for image_id, row in found.items():
            assert row["PatientID"] == expected[image_id].patient_id
            assert row["member_name"] == expected[image_id].name
            assert int(row["member_size"]) == len(expected[image_id].data)
    assert json.loads((described / "metadata_manifest.json").read_text())["num_slices"] == {
        "train": sum(s.subset == "train" for s in slices),
        "test": sum(s.subset == "test" for s in slices),
    }
    assert read_quarantine(DataLayout(str(described)), "extract_metadata") == []


def test_nothing_that_names_a_person_is_written(described: Path):
    for path in described.rglob("*"):
        if path.is_file():
            assert b"Doe" not in path.read_bytes(), path
            assert b"19500102" not in path.read_bytes(), path


def bad_archive(path: Path) -> Path:
    files = archive_files(make_series("p", 4))
    files[f"{TRAIN}/ID_text.dcm"] = b"this is no DICOM file"
    files[f"{TRAIN}/ID_empty.dcm"] = b""
    files[f"{ROOT}/stage_2_test/ID_place.dcm"] = make_dicom(omit=["ImagePositionPatient"])
    files[f"{ROOT}/notes.txt"] = b"not a slice"
    return write_zip(path, files)


def test_bad_slices_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data_dir = tmp_path / "data"
    extract(bad_archive(tmp_path / "a.zip"), data_dir, "--max_bad_fraction", "0.5")
    assert (len(rows(data_dir, "train")), len(rows(data_dir, "test"))) == (4, 0)
    bad = read_quarantine(DataLayout(str(data_dir)), "extract_metadata")
    assert [(b.member_name.rsplit("/", 1)[1], b.subset, b.stage, b.reason) for b in bad] == [
        (
            "ID_place.dcm",
            "test",
            "extract_metadata",
            "ImagePositionPatient is absent: the slice has no place in its series",
        ),
        (
            "ID_empty.dcm",
            "train",
            "extract_metadata",
            "not a readable DICOM header (InvalidDicomError)",
        ),
        (
            "ID_text.dcm",
            "train",
            "extract_metadata",
            "not a readable DICOM header (InvalidDicomError)",
        ),
    ]
    assert capsys.readouterr().err == (
        "extract_metadata: 7 slices in, 4 written, 3 quarantined "
        f"(see {data_dir}/quarantine/extract_metadata.csv)\n"
    )


def test_too_many_bad_slices_are_an_error(tmp_path: Path):
    data_dir = tmp_path / "data"
    with pytest.raises(UserError) as error:
        extract(bad_archive(tmp_path / "a.zip"), data_dir, "--max_bad_fraction", "0.4")
    assert str(error.value) == (
        "extract_metadata: 3 of 7 slices are bad, more than --max_bad_fraction 0.4 allows; see "
        f"{data_dir}/quarantine/extract_metadata.csv, then mend the archive or allow more"
    )
    assert not (data_dir / "train_metadata.csv").exists()
    assert not (data_dir / "metadata_manifest.json").exists()


@pytest.mark.parametrize("seed", range(3))
def test_an_image_id_has_one_row(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Of members with one id the first by name is kept, in whatever order and part they come."""
    monkeypatch.setattr("beam_pipelines.metadata.MEMBERS_PER_PART", 3)
    twins = {f"{TRAIN}/{name}.dcm": make_dicom(SOPInstanceUID="a, b") for name in "caedb"}
    other = {f"{ROOT}/stage_2_test/z.dcm": make_dicom(SOPInstanceUID="a, b")}
    near = {f"{TRAIN}/near.dcm": make_dicom(SOPInstanceUID="a, c")}
    files = list({**twins, **other, **near}.items())
    random.Random(seed).shuffle(files)
    extract(write_zip(tmp_path / "a.zip", dict(files)), tmp_path, "--max_bad_fraction=1")
    assert [row["member_name"] for row in rows(tmp_path, "test")] == [f"{ROOT}/stage_2_test/z.dcm"]
    assert [row["SOPInstanceUID"] for row in rows(tmp_path, "train")] == ["a, c"]
    bad = read_quarantine(DataLayout(str(tmp_path)), "extract_metadata")
    assert [(b.member_name, b.image_id) for b in bad] == [(name, "a, b") for name in sorted(twins)]
    assert {b.reason for b in bad} == {f"SOPInstanceUID is also that of {ROOT}/stage_2_test/z.dcm"}
    found = json.loads((tmp_path / "metadata_manifest.json").read_text())
    assert (found["num_slices"], found["num_quarantined"]) == ({"train": 1, "test": 1}, 5)
    assert "7 slices in, 2 written, 5 quarantined" in capsys.readouterr().err


def test_a_second_run_uses_the_finished_parts(
    archive: Path, described: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data_dir = Path(shutil.copytree(described, tmp_path / "data"))
    before = {p.name: p.stat().st_mtime_ns for p in (data_dir / "metadata_parts").iterdir()}
    text = (data_dir / "train_metadata.csv").read_bytes()
    extract(archive, data_dir)
    after = {p.name: p.stat().st_mtime_ns for p in (data_dir / "metadata_parts").iterdir()}
    assert after == before
    assert (data_dir / "train_metadata.csv").read_bytes() == text
    assert "1 shards were there already" in capsys.readouterr().err


def test_another_archive_is_read_anew(described: Path, tmp_path: Path):
    data_dir = Path(shutil.copytree(described, tmp_path / "data"))
    extract(write_zip(tmp_path / "b.zip", archive_files(make_series("q", 3))), data_dir)
    assert {row["PatientID"] for row in rows(data_dir, "train")} == {"q"}


def test_a_folder_and_many_workers_give_the_same_rows(described: Path, tmp_path: Path):
    folder = write_folder(tmp_path / "folder", archive_files(make_slices()))
    extract(folder, tmp_path / "data", "--direct_num_workers=2")

    def cells(data_dir: Path) -> list[tuple[str, ...]]:
        kept = [c for c in rows(data_dir, "train")[0] if not c.startswith("member_")]
        found = rows(data_dir, "train") + rows(data_dir, "test")
        return sorted(tuple(row[c] for c in [*kept, "member_name"]) for row in found)

    assert cells(tmp_path / "data") == cells(described)


def test_archive_and_data_root_in_a_bucket(archive: Path, described: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/archive.zip", archive.read_bytes())
    try:
        flags = ["--archive", "memory://bucket/archive.zip", "--data_dir", "memory://bucket/data"]
        run(flags)
        for name in ("train_metadata.csv", "test_metadata.csv"):
            assert memory.cat(f"/bucket/data/{name}") == (described / name).read_bytes()
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file or folder; give a zip of DICOM slices"),
        (lambda path: path.write_bytes(b"no zip"), "not a zip archive, or one that is cut short"),
        (lambda path: path.mkdir(), "holds no *.dcm files; give an archive of DICOM slices"),
        (lambda path: write_zip(path, {"a.txt": b""}), "holds no *.dcm files; give an archive"),
    ],
    ids=["absent", "no zip", "empty folder", "no slices"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, make, message: str):
    path = tmp_path / "archive"
    make(path)
    with pytest.raises(UserError) as error:
        extract(path, tmp_path / "data")
    assert str(error.value).startswith(f"--archive {path}: {message}")
    assert not (tmp_path / "data").exists()


def test_one_slice_of_any_size(tmp_path: Path):
    path = write_zip(tmp_path / "a.zip", {"own/scan.dcm": make_dicom(np.zeros((7, 3)))})
    extract(path, tmp_path / "data")
    (row,) = rows(tmp_path / "data", "test")
    assert (row["Rows"], row["Columns"], row["member_name"]) == ("7", "3", "own/scan.dcm")


def test_parts_of_an_earlier_archive_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("beam_pipelines.metadata.MEMBERS_PER_PART", 2)
    for number in (6, 3):
        slices = archive_files(make_series("p", number))
        extract(write_zip(tmp_path / f"{number}.zip", slices), tmp_path / "data")
    parts = sorted(path.name for path in (tmp_path / "data" / "metadata_parts").glob("*.csv"))
    assert parts == ["shard-00000-of-00002.csv", "shard-00001-of-00002.csv"]
    assert len(rows(tmp_path / "data", "train")) == 3
