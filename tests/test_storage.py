import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from beam_pipelines import storage


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder on this machine, and one in a store without renames."""
    if request.param == "local":
        yield str(tmp_path)
        return
    memory = fsspec.filesystem("memory")
    memory.makedirs("/bucket/prefix")
    yield "memory://bucket/prefix"
    memory.rm("/bucket", recursive=True)


def names(root: str) -> list[str]:
    fs, name = storage.filesystem(root)
    return sorted(entry.rsplit("/", 1)[-1] for entry in fs.find(name))


def test_a_file_appears_whole_when_the_block_ends(root: str):
    path = storage.join(root, "folder", "file")
    storage.write_text(storage.join(root, "other"), "")
    with storage.open_atomic(path) as file:
        file.write(b"one ")
        file.write(b"two")
        assert not storage.exists(path)
    assert storage.read_bytes(path) == b"one two"
    assert names(root) == ["file", "other"]


def test_an_exception_leaves_nothing(root: str):
    storage.write_text(storage.join(root, "other"), "")
    with pytest.raises(KeyError), storage.open_atomic(storage.join(root, "file")) as file:
        file.write(b"half")
        raise KeyError
    assert names(root) == ["other"]


def test_an_exception_leaves_the_old_file(root: str):
    path = storage.join(root, "file")
    storage.write_text(path, "old")
    with pytest.raises(KeyError), storage.open_atomic(path) as file:
        file.write(b"new, half")
        raise KeyError
    assert storage.read_bytes(path) == b"old"
    storage.write_text(path, "new")
    assert storage.read_bytes(path) == b"new"
    assert names(root) == ["file"]


def test_an_interrupt_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), storage.open_atomic(str(tmp_path / "file")):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_removed(root: str):
    kept = ["a", "a.tmp-0123456", "a.tmp-0123456g"]
    for name in [*kept, "a.tmp-01234567"]:
        storage.write_text(storage.join(root, name), "")
    storage.remove_leftovers(root)
    assert names(root) == kept


def test_no_leftovers_in_a_folder_that_is_not_there(root: str):
    storage.remove_leftovers(storage.join(root, "absent"))
    assert not storage.exists(storage.join(root, "absent"))


def test_exists_remove_and_folders(root: str):
    path = storage.join(root, "folder", "file")
    assert not storage.exists(path)
    storage.write_text(path, "x")
    assert storage.exists(path)
    assert storage.is_folder(storage.join(root, "folder"))
    assert not storage.is_folder(path)
    storage.remove(path)
    storage.remove(path)
    assert not storage.exists(path)
    storage.make_folder(storage.join(root, "a", "b"))
    storage.make_folder(storage.join(root, "a", "b"))
    assert storage.is_folder(storage.join(root, "a", "b"))


def test_glob_gives_paths_that_can_be_opened(root: str):
    for name in ("b.json", "a.json", "a.txt"):
        storage.write_text(storage.join(root, "folder", name), name)
    found = storage.glob(storage.join(root, "folder", "*.json"))
    assert [storage.read_bytes(path) for path in found] == [b"a.json", b"b.json"]


def test_json_round_trip_is_the_same_bytes_for_equal_values(root: str):
    path = storage.join(root, "value.json")
    storage.write_json(path, {"b": [1, None], "a": "ä"})
    first = storage.read_bytes(path)
    assert storage.read_json(path) == {"a": "ä", "b": [1, None]}
    storage.write_json(path, {"a": "ä", "b": [1, None]})
    assert storage.read_bytes(path) == first
    assert json.loads(first) == {"a": "ä", "b": [1, None]}


def test_a_file_that_is_not_there(root: str):
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "absent"))


@pytest.mark.parametrize(
    ("root", "names", "path"),
    [
        ("data", ("a", "b"), "data/a/b"),
        ("data/", ("a",), "data/a"),
        ("gs://bucket/prefix/", ("a",), "gs://bucket/prefix/a"),
        ("data/", (), "data/"),
    ],
)
def test_join(root: str, names: tuple[str, ...], path: str):
    assert storage.join(root, *names) == path


def test_what_is_local():
    assert storage.is_local("data")
    assert storage.is_local("file:///data")
    assert not storage.is_local("memory://data")
