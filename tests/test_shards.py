import json
from pathlib import Path

import pytest

from beam_pipelines import shards
from beam_pipelines.errors import UserError
from beam_pipelines.shards import Receipt


def write(folder: Path, name: str, expected: str, data: bytes = b"data") -> Receipt:
    with shards.write_shard(str(folder), name, expected) as (file, receipt):
        file.write(data)
        receipt["num_slices"] = len(data)
    return receipt


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fingerprint_is_the_same_for_ever():
    """Another hash would rebuild every shard there is."""
    assert shards.fingerprint("build", 1, {"b": [1.5, None], "a": "ä"}) == (
        "677fd26508f90f0fff07a156"
    )


def test_fingerprint_tells_values_apart_and_not_the_order_of_keys():
    assert shards.fingerprint({"a": 1, "b": 2}) == shards.fingerprint({"b": 2, "a": 1})
    assert shards.fingerprint((1, 2)) == shards.fingerprint([1, 2])
    values = [(), (1,), (1, 2), ((1, 2),), ("1",), (1.5,), (None,), ("",), ("a", "b"), ("ab",)]
    assert len({shards.fingerprint(*value) for value in values}) == len(values)


def test_a_finished_shard_is_found_by_its_fingerprint(tmp_path: Path):
    receipt = write(tmp_path, "a", "f1")
    assert receipt == {"name": "a", "fingerprint": "f1", "num_slices": 4}
    assert shards.finished(str(tmp_path), "a", "f1") == receipt
    assert shards.finished(str(tmp_path), "a", "f2") is None
    assert shards.finished(str(tmp_path), "b", "f1") is None
    (tmp_path / "a").unlink()
    assert shards.finished(str(tmp_path), "a", "f1") is None


def test_an_exception_leaves_no_shard(tmp_path: Path):
    with pytest.raises(KeyError), shards.write_shard(str(tmp_path), "a", "f1") as (file, _):
        file.write(b"half")
        raise KeyError
    assert names(tmp_path) == []


def test_an_exception_while_rebuilding_leaves_no_receipt(tmp_path: Path):
    """The old shard stays, but nothing says that it is what the new settings ask for."""
    write(tmp_path, "a", "f1")
    with pytest.raises(KeyError), shards.write_shard(str(tmp_path), "a", "f2"):
        raise KeyError
    assert shards.finished(str(tmp_path), "a", "f1") is None
    assert shards.finished(str(tmp_path), "a", "f2") is None


def test_receipts_come_in_the_order_of_the_names(tmp_path: Path):
    for name in ("b", "c", "a"):
        write(tmp_path, name, "f")
    assert [r["name"] for r in shards.read_receipts(str(tmp_path))] == ["a", "b", "c"]


def test_manifest_sorts_shards_and_removes_those_of_other_runs(tmp_path: Path):
    kept = [write(tmp_path, name, "f") for name in ("b", "a")]
    write(tmp_path, "stale", "f")
    (tmp_path / "notes.txt").write_text("the user's own")
    manifest = shards.publish_manifest(str(tmp_path), "stage", {"size": 1}, kept, num_slices=8)
    assert manifest == shards.read_manifest(str(tmp_path), "make it")
    assert [shard["name"] for shard in manifest["shards"]] == ["a", "b"]
    assert (manifest["stage"], manifest["settings"]) == ("stage", {"size": 1})
    assert manifest["num_slices"] == 8
    assert names(tmp_path) == [
        "a",
        "a.receipt.json",
        "b",
        "b.receipt.json",
        "manifest.json",
        "notes.txt",
    ]


def test_manifests_fingerprint_follows_settings_and_shards(tmp_path: Path):
    def fingerprint(settings: dict, *receipts: Receipt) -> str:
        return shards.publish_manifest(str(tmp_path), "stage", settings, receipts)["fingerprint"]

    a, b = ({"name": "a", "fingerprint": "1"}, {"name": "b", "fingerprint": "2"})
    first = fingerprint({}, a, b)
    assert first == fingerprint({}, b, a)
    assert first == fingerprint({}, a, {**b, "reused": True})
    others = [
        fingerprint({"x": 1}, a, b),
        fingerprint({}, a),
        fingerprint({}, a, {**b, "fingerprint": "3"}),
    ]
    assert len({first, *others}) == 4


def test_a_retracted_folder_is_incomplete(tmp_path: Path):
    write(tmp_path, "a", "f")
    (tmp_path / "b.tmp-0123abcd").write_text("of a killed run")
    shards.publish_manifest(str(tmp_path), "stage", {}, [])
    write(tmp_path, "a", "f")
    shards.retract_manifest(str(tmp_path))
    shards.retract_manifest(str(tmp_path))
    assert names(tmp_path) == ["a", "a.receipt.json"]
    with pytest.raises(UserError) as error:
        shards.read_manifest(str(tmp_path), "python -m make_it")
    assert str(error.value) == (
        f"{tmp_path}: no manifest.json, so it is missing or incomplete; run python -m make_it"
    )


def test_a_manifest_holds_no_quarantine():
    receipt = {"name": "a", "fingerprint": "f", "quarantined": [1], "reused": True, "split": "s"}
    assert shards.for_manifest(receipt) == {"name": "a", "fingerprint": "f"}


def test_receipts_are_plain_json(tmp_path: Path):
    receipt = write(tmp_path, "a", "f")
    assert json.loads((tmp_path / "a.receipt.json").read_text()) == receipt


def test_every_slice_is_accounted_for():
    shards.check_complete("stage", 3, 3)
    for accounted in (2, 4):
        with pytest.raises(RuntimeError, match=f"3 slices came in, but {accounted} are accounted"):
            shards.check_complete("stage", 3, accounted)


@pytest.mark.parametrize(("bad", "limit"), [(0, 0.0), (1, 0.01), (100, 1.0)])
def test_bad_slices_within_the_limit(bad: int, limit: float):
    shards.check_bad_fraction("stage", bad, 100, limit, "report.csv")


@pytest.mark.parametrize(("bad", "limit"), [(1, 0.0), (2, 0.01), (100, 0.99)])
def test_bad_slices_beyond_the_limit(bad: int, limit: float):
    with pytest.raises(UserError) as error:
        shards.check_bad_fraction("stage", bad, 100, limit, "report.csv")
    assert str(error.value) == (
        f"stage: {bad} of 100 slices are bad, more than --max_bad_fraction {limit} allows; see "
        "report.csv, then mend the archive or allow more"
    )
