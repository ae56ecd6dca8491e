"""Shard files that are whole or absent, with a receipt each, and a manifest of a whole folder.

    train/shard-00000-of-00002.tfrecord        the records, renamed into place when complete
    train/shard-00000-of-00002.receipt.json    what they were made from, and how many there are
    train/manifest.json                        written last: the folder is complete

A receipt holds a fingerprint of everything that the shard depends on: inputs, settings, version of
the format. A rerun skips a shard whose receipt has the fingerprint that it would get, and rebuilds
any other. What reads a folder asks for its manifest, never for the files alone.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from beam_pipelines import schema, storage
from beam_pipelines.errors import UserError, require

MANIFEST = "manifest.json"
_RECEIPT = ".receipt.json"
# What a receipt of examples or embeddings counts, beside its `label_counts`, a list.
COUNTS = ("num_slices", "num_labelled", "num_patients", "num_series")

Receipt = dict[str, Any]


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-like values; equal values give equal hashes on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def receipt_path(folder: str, name: str) -> str:
    """Where the receipt of a shard is."""
    return storage.join(folder, name + _RECEIPT)


def finished(folder: str, name: str, expected: str) -> Receipt | None:
    """The receipt of a shard that is complete and has the expected fingerprint, or None."""
    try:
        receipt = storage.read_json(receipt_path(folder, name))
    except FileNotFoundError:
        return None
    if receipt["fingerprint"] != expected or not storage.exists(storage.join(folder, name)):
        return None
    return receipt


@contextlib.contextmanager
def write_shard(folder: str, name: str, expected: str) -> Iterator[tuple[IO[bytes], Receipt]]:
    """Opens a shard to be written.

    The block writes the file and fills in the receipt; both appear when it ends without an
    exception, the receipt last.

    Args:
        folder: where the shard goes.
        name: the shard's file name.
        expected: fingerprint of all that it depends on.
    """
    path = receipt_path(folder, name)
    storage.remove(path)
    receipt: Receipt = {"name": name, "fingerprint": expected}
    with storage.open_atomic(storage.join(folder, name)) as file:
        yield file, receipt
    storage.write_json(path, receipt)


def build_shard(
    folder: str, name: str, expected: str, write: Callable[[IO[bytes]], Receipt]
) -> Receipt:
    """Makes a shard, or finds that it is there.

    Args:
        folder: where the shard goes.
        name: the shard's file name.
        expected: fingerprint of all that it depends on.
        write: writes the file and returns what its receipt says.

    Returns:
        The receipt; `reused` is True in it where the shard was there already.
    """
    done = finished(folder, name, expected)
    if done is not None:
        return {**done, "reused": True}
    with write_shard(folder, name, expected) as (file, receipt):
        receipt.update(write(file))
    return receipt


def read_receipts(folder: str) -> list[Receipt]:
    """The receipts of a folder, in the order of the shards' names."""
    return [storage.read_json(p) for p in storage.glob(storage.join(folder, "*" + _RECEIPT))]


def retract(manifest: str, folder: str) -> None:
    """Says that a folder is being rebuilt: it is not complete until its manifest is back."""
    storage.remove(manifest)
    storage.remove_leftovers(folder)


def retract_manifest(folder: str) -> None:
    """Retracts the manifest that is in the folder itself."""
    retract(storage.join(folder, MANIFEST), folder)


def for_manifest(receipt: Receipt) -> Receipt:
    """A receipt as a manifest holds it; the quarantine has a file of its own."""
    left_out = ("quarantined", "reused", "split")
    return {key: value for key, value in receipt.items() if key not in left_out}


def totals_of(receipts: Iterable[Receipt]) -> dict[str, Any]:
    """What the receipts of shards of slices say together.

    Shards hold whole patients, so that sums of patients and series are right.

    Returns:
        Each of COUNTS, and `label_counts`: positive slices of each subtype.
    """
    receipts = list(receipts)
    totals: dict[str, Any] = {key: sum(receipt[key] for receipt in receipts) for key in COUNTS}
    totals["label_counts"] = {
        subtype: sum(receipt["label_counts"][column] for receipt in receipts)
        for column, subtype in enumerate(schema.SUBTYPES)
    }
    return totals


def remove_stale(folder: str, receipts: Iterable[Receipt]) -> None:
    """Removes the shards of a folder that are not among `receipts`: those of other runs."""
    names = {receipt["name"] for receipt in receipts}
    for stale in read_receipts(folder):
        if stale["name"] not in names:
            storage.remove(receipt_path(folder, stale["name"]))
            storage.remove(storage.join(folder, stale["name"]))


def publish_manifest(
    folder: str, stage: str, settings: Any, receipts: Iterable[Receipt], **totals: Any
) -> dict[str, Any]:
    """Declares a folder complete: removes shards of other runs and writes the manifest.

    Args:
        folder: the shards' folder.
        stage: name of the program that made them.
        settings: JSON-like; what a reader must know of how they were made.
        receipts: one a shard.
        totals: further entries.

    Returns:
        The manifest.
    """
    shards = sorted(receipts, key=lambda r: r["name"])
    remove_stale(folder, shards)
    manifest = {
        "stage": stage,
        "fingerprint": fingerprint(settings, [(r["name"], r["fingerprint"]) for r in shards]),
        "settings": settings,
        "shards": shards,
        **totals,
    }
    storage.write_json(storage.join(folder, MANIFEST), manifest)
    return manifest


def read_manifest(folder: str, how_to_make: str) -> dict[str, Any]:
    """The manifest of a complete folder.

    Args:
        folder: the shards' folder.
        how_to_make: the command that makes it, for the error.

    Raises:
        UserError: the folder is not there or not complete.
    """
    try:
        return storage.read_json(storage.join(folder, MANIFEST))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {MANIFEST}, so it is missing or incomplete; run {how_to_make}"
        ) from None


def check_complete(stage: str, expected: int, accounted: int) -> None:
    """Checks that what came in has been written or quarantined.

    Raises:
        RuntimeError: it has not; a defect of the program, not of the data.
    """
    if expected != accounted:
        raise RuntimeError(f"{stage}: {expected} slices came in, but {accounted} are accounted for")


def check_bad_fraction(stage: str, bad: int, total: int, limit: float, report: str) -> None:
    """Checks how many slices are in quarantine.

    Raises:
        UserError: their share is above the limit.
    """
    require(
        bad <= limit * total,
        f"{stage}: {bad} of {total} slices are bad, more than --max_bad_fraction {limit} allows; "
        f"see {report}, then mend the archive or allow more",
    )
