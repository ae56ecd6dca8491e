"""An archive of DICOM files: a zip or a folder tree, local or in a bucket."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from beam_pipelines import storage
from beam_pipelines.errors import UserError
from beam_pipelines.member import MAX_MEMBER_BYTES, BadMemberError, Member, is_dicom_name
from beam_pipelines.zip_archive import ZipArchive


class Archive(Protocol):
    """What every stage uses of an archive. Reading is safe from several threads."""

    path: str

    def __len__(self) -> int:
        """Number of DICOM members."""

    def member(self, index: int) -> Member:
        """The DICOM member at an index from 0, in the archive's own order."""

    def find(self, file_name: str) -> Member | None:
        """The first member, of any kind, whose last path component is `file_name`."""

    def read(self, member: Member) -> bytes:
        """All bytes of a member; raises BadMemberError."""

    def read_head(self, member: Member, size: int) -> bytes:
        """At least the first `size` bytes of a member, fewer where it is shorter."""


def open_archive(path: str) -> Archive:
    """Opens a zip or a folder tree, local or `gs://`.

    Raises:
        UserError: there is nothing at `path`, or it is neither a folder nor a zip.
    """
    if storage.is_folder(path):
        return FolderArchive(path)
    if not storage.exists(path):
        raise UserError(f"--archive {path}: no such file or folder; give a zip of DICOM slices")
    return ZipArchive(path)


class FolderArchive:
    """A folder tree of `**/*.dcm` files through the same interface."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._members: list[Member] | None = None

    def __len__(self) -> int:
        return len(self._load())

    def member(self, index: int) -> Member:
        """The DICOM member at an index from 0, in the order of the names."""
        return self._load()[index]

    def find(self, file_name: str) -> Member | None:
        """The first file of the tree, of any kind, with this name."""
        found = storage.glob(storage.join(glob.escape(self.path), "**", file_name))
        if not found:
            return None
        fs, name = storage.filesystem(found[0])
        return Member(self._relative(name), 0, fs.size(name), fs.size(name))

    def read(self, member: Member) -> bytes:
        """All bytes of a member; raises BadMemberError."""
        return self._read(member, None)

    def read_head(self, member: Member, size: int) -> bytes:
        """The first `size` bytes of a member, fewer where it is shorter."""
        return self._read(member, size)

    def _read(self, member: Member, size: int | None) -> bytes:
        if size is None and member.size > MAX_MEMBER_BYTES:
            raise BadMemberError(f"{member.size} bytes are more than a slice can have")
        fs, root = storage.filesystem(self.path)
        try:
            return fs.cat_file(f"{root.rstrip('/')}/{member.name}", end=size)
        except OSError as error:
            raise BadMemberError(
                f"cannot be read: {error.strerror or type(error).__name__}"
            ) from None

    def _load(self) -> list[Member]:
        if self._members is None:
            self._members = list(self._list())
        return self._members

    def _list(self) -> Iterator[Member]:
        if storage.is_local(self.path):
            root = Path(storage.filesystem(self.path)[1])
            for path in sorted(p for p in root.rglob("*") if is_dicom_name(p.name) and p.is_file()):
                size = path.stat().st_size
                yield Member(path.relative_to(root).as_posix(), 0, size, size)
            return
        fs, root_name = storage.filesystem(self.path)
        for name, info in sorted(fs.find(root_name, detail=True).items()):
            if is_dicom_name(name):
                yield Member(self._relative(name), 0, info["size"], info["size"])

    def _relative(self, name: str) -> str:
        root = storage.filesystem(self.path)[1].rstrip("/")
        return name[len(root) + 1 :]
