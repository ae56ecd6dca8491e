"""Files by path, local or `gs://`, through fsspec; whole or not at all.

Local paths and bucket paths go through the same few functions. A file that is being written is
never visible under its final name: locally it is written beside it and renamed; for a bucket it is
written to this machine's temporary folder and uploaded, and an object appears when its upload is
complete.
"""

import contextlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

# A temporary name ends so; `remove_leftovers` clears what a killed run has left behind.
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{8}$")


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec file system of `path` and the path as that file system spells it."""
    return fsspec.core.url_to_fs(path)


def is_local(path: str) -> bool:
    """Whether `path` is on this machine's own file system."""
    return isinstance(filesystem(path)[0], LocalFileSystem)


def join(root: str, *names: str) -> str:
    """Joins path components with `/`, which fits local paths and bucket paths alike."""
    return "/".join([root.rstrip("/") or "/", *names]) if names else root


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    fs, name = filesystem(path)
    return fs.exists(name)


def size(path: str) -> int:
    """Bytes of a file."""
    fs, name = filesystem(path)
    return int(fs.size(name))


def is_folder(path: str) -> bool:
    """Whether `path` is a folder (in a bucket: a prefix of objects)."""
    fs, name = filesystem(path)
    return fs.isdir(name)


def make_folder(path: str) -> None:
    """Makes a folder and its parents where they are missing."""
    fs, name = filesystem(path)
    fs.makedirs(name, exist_ok=True)


def glob(pattern: str) -> list[str]:
    """Sorted paths that match `pattern`, with the protocol that `pattern` has."""
    fs, name = filesystem(pattern)
    found = sorted(fs.glob(name))
    return found if isinstance(fs, LocalFileSystem) else [fs.unstrip_protocol(f) for f in found]


def remove(path: str) -> None:
    """Removes a file if it is there."""
    fs, name = filesystem(path)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(name)


def open_read(path: str) -> IO[bytes]:
    """Opens a file to read bytes.

    Raises:
        FileNotFoundError: there is no such file.
    """
    fs, name = filesystem(path)
    return fs.open(name, "rb")


@contextlib.contextmanager
def open_atomic(path: str) -> Iterator[IO[bytes]]:
    """Opens `path` to write bytes; it appears when the block ends without an exception.

    Locally the bytes are flushed to disk before the rename, so that a power cut cannot leave a
    final name with missing contents.
    """
    fs, name = filesystem(path)
    if isinstance(fs, LocalFileSystem):
        final = Path(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f"{final.name}.tmp-{secrets.token_hex(4)}")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return
    # fsspec's own deferred commit is not offered by all of its file systems.
    with tempfile.NamedTemporaryFile() as file:
        yield file
        file.flush()
        fs.put_file(file.name, name)


def read_bytes(path: str) -> bytes:
    """The whole contents of a file."""
    with open_read(path) as file:
        return file.read()


def write_text(path: str, text: str) -> None:
    """Writes a whole text file, UTF-8, atomically."""
    with open_atomic(path) as file:
        file.write(text.encode())


def read_json(path: str) -> Any:
    """Reads a JSON file."""
    return json.loads(read_bytes(path))


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file atomically; equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def remove_leftovers(folder: str) -> None:
    """Removes the temporary files that a killed run has left in `folder`."""
    fs, name = filesystem(folder)
    if not fs.isdir(name):
        return
    for entry in fs.ls(name, detail=False):
        if _TEMPORARY.search(entry):
            fs.rm_file(entry)
