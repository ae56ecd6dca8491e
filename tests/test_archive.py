from pathlib import Path

import fsspec
import pytest
from synthetic import ROOT, archive_files, make_slices, write_folder, write_zip

from beam_pipelines.archive import FolderArchive, open_archive
from beam_pipelines.errors import UserError
from beam_pipelines.member import MAX_MEMBER_BYTES, BadMemberError, is_dicom_name
from beam_pipelines.zip_archive import ZipArchive

FILES = {f"{ROOT}/b.DCM": b"bb", f"{ROOT}/a.dcm": b"a", f"{ROOT}/notes.txt": b"text", "c.dcm": b""}


def contents(path: str) -> dict[str, bytes]:
    archive = open_archive(path)
    members = [archive.member(i) for i in range(len(archive))]
    assert [m.size for m in members] == [len(archive.read(m)) for m in members]
    return {m.name: archive.read(m) for m in members}


def test_zip_folder_and_bucket_hold_the_same(tmp_path: Path):
    files = archive_files(make_slices(2, 1))
    slices = {name: data for name, data in files.items() if name.endswith(".dcm")}
    write_zip(tmp_path / "a.zip", files)
    write_folder(tmp_path / "folder", files)
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/bucket/folder/{name}": data for name, data in files.items()})
    memory.pipe("/bucket/a.zip", (tmp_path / "a.zip").read_bytes())
    try:
        for path in ("folder", "folder/", "a.zip"):
            assert contents(f"{tmp_path}/{path}") == slices
            assert contents(f"memory://bucket/{path}") == slices
            for root in (tmp_path, "memory://bucket"):
                archive = open_archive(f"{root}/{path}")
                labels = archive.find("stage_2_train.csv")
                assert labels is not None
                assert archive.read(labels) == files[f"{ROOT}/stage_2_train.csv"]
    finally:
        memory.rm("/bucket", recursive=True)


def test_kinds_of_archive(tmp_path: Path):
    write_folder(tmp_path / "folder", FILES)
    write_zip(tmp_path / "a.zip", FILES)
    assert isinstance(open_archive(str(tmp_path / "folder")), FolderArchive)
    assert isinstance(open_archive(str(tmp_path / "a.zip")), ZipArchive)


def test_a_folders_members_are_its_dicom_files_by_name(tmp_path: Path):
    write_folder(tmp_path, {**FILES, "folder.dcm/d.dcm": b"d"})
    archive = open_archive(str(tmp_path))
    names = [archive.member(i).name for i in range(len(archive))]
    assert names == ["c.dcm", "folder.dcm/d.dcm", f"{ROOT}/a.dcm", f"{ROOT}/b.DCM"]


def test_the_head_of_a_file(tmp_path: Path):
    write_folder(tmp_path, {"a.dcm": bytes(range(100))})
    archive = open_archive(str(tmp_path))
    member = archive.member(0)
    assert archive.read_head(member, 10) == bytes(range(10))
    assert archive.read_head(member, 1000) == bytes(range(100))


def test_a_folder_whose_name_has_brackets(tmp_path: Path):
    path = write_folder(tmp_path / "run [1]*", archive_files(make_slices(1, 0)))
    found = open_archive(str(path)).find("stage_2_train.csv")
    assert found is not None
    assert found.name == f"{ROOT}/stage_2_train.csv"


def test_a_file_at_the_root_of_a_folder_is_found(tmp_path: Path):
    write_folder(tmp_path, {"stage_2_train.csv": b"x"})
    found = open_archive(str(tmp_path)).find("stage_2_train.csv")
    assert found is not None
    assert found.name == "stage_2_train.csv"


def test_what_cannot_be_read_is_a_bad_member(tmp_path: Path):
    write_folder(tmp_path, FILES)
    archive = open_archive(str(tmp_path))
    member = archive.member(0)
    with pytest.raises(BadMemberError, match="more than a slice can have"):
        archive.read(member._replace(size=MAX_MEMBER_BYTES + 1))
    (tmp_path / member.name).unlink()
    with pytest.raises(BadMemberError, match="cannot be read: No such file or directory"):
        archive.read(member)


def test_nothing_there_is_a_user_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.zip: no such file or folder; give a zip"):
        open_archive(str(tmp_path / "absent.zip"))


def test_dicom_names():
    assert [is_dicom_name(n) for n in ("a.dcm", "a/B.DCM", "a.dcm.txt", "dcm", "a.dcm/")] == [
        True,
        True,
        False,
        False,
        False,
    ]
