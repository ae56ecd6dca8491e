"""A reference to one file of an archive."""

from typing import NamedTuple

# DICOM files of one CT slice are about 0.5 MB; a member beyond this is no slice.
MAX_MEMBER_BYTES = 512 << 20


class Member(NamedTuple):
    """A reference to one file of an archive: all that is needed to read it again.

    Attributes:
        name: path inside the archive, with `/`.
        offset: of the local header in a zip; 0 in a folder.
        compressed_size: bytes in the zip; equal to `size` in a folder.
        size: bytes of the file.
        crc: CRC-32 of the file; 0 in a folder.
        method: 8 where the member is deflated, 0 where it is stored.
        flags: general purpose flags of the zip entry.
    """

    name: str
    offset: int
    compressed_size: int
    size: int
    crc: int = 0
    method: int = 0
    flags: int = 0


class BadMemberError(Exception):
    """A member that cannot be read; the archive's other members still can."""


def is_dicom_name(name: str) -> bool:
    """Whether a member's name says that it is a DICOM file."""
    return name.lower().endswith(".dcm")
