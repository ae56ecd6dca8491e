"""Parts of metadata to the two metadata files, in which every image id has one row."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from beam_pipelines import shards, storage
from beam_pipelines.layout import DataLayout
from beam_pipelines.metadata import STAGE
from beam_pipelines.quarantine import BadSlice, settle
from beam_pipelines.slice_references import COLUMNS, SliceReference, parse_references

Row = tuple[str, bytes]


def read_rows(folder: str, receipts: list[shards.Receipt]) -> Iterator[Row]:
    """Subset and text of every row of the parts, in their order."""
    for receipt in receipts:
        with storage.open_read(storage.join(folder, receipt["name"])) as part:
            for line in part:
                subset, _, row = line.partition(b",")
                yield subset.decode(), row


def find_repeated(folder: str, receipts: list[shards.Receipt]) -> dict[Row, BadSlice]:
    """Rows whose image id another member has too.

    An id is used once, by the first member by name of the test part, else of the train part.

    Returns:
        The other rows, as slices that are left out.
    """
    # One number a row in place of its id: 7 MB for the real archive, 60 MB as a set of texts.
    hashes = np.fromiter((_hash_id(row) for _, row in read_rows(folder, receipts)), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    if not suspects:
        return {}
    by_id: dict[str, list[tuple[SliceReference, Row]]] = {}
    for subset, row in read_rows(folder, receipts):
        if _hash_id(row) in suspects:
            (reference,) = parse_references([row.decode()], subset)
            by_id.setdefault(reference.image_id, []).append((reference, (subset, row)))
    repeated: dict[Row, BadSlice] = {}
    for found in by_id.values():
        (first, _), *others = sorted(found, key=lambda pair: (pair[0].subset, pair[0].member))
        reason = f"SOPInstanceUID is also that of {first.member.name}"
        for r, key in others:
            repeated[key] = BadSlice(r.member.name, r.image_id, r.subset, STAGE, reason)
    return repeated


def _hash_id(row: bytes) -> int:
    # SOPInstanceUID is the first column; Python's hash is the same within one process.
    return hash(row.partition(b",")[0])


@dataclass(frozen=True)
class PublishMetadata:
    """Merges the parts into the metadata files once all are there.

    Attributes:
        data_dir: data root.
        archive_path: what the manifest names as the source.
        num_members: DICOM members of the archive.
        max_bad_fraction: largest share of them that may be in quarantine.
    """

    data_dir: str
    archive_path: str
    num_members: int
    max_bad_fraction: float

    def __call__(self, receipts: list[shards.Receipt]) -> None:
        """Merges; raises UserError where too many slices are bad."""
        layout = DataLayout(self.data_dir)
        receipts = sorted(receipts, key=lambda r: r["name"])
        repeated = find_repeated(layout.metadata_parts, receipts)
        # A receipt of what the parts could not know: fewer rows, more in quarantine.
        correction = {"num_slices": -len(repeated), "quarantined": list(repeated.values())}
        num_bad = settle(
            layout, STAGE, [*receipts, correction], self.num_members, self.max_bad_fraction
        )
        num_slices = self._merge(layout, receipts, repeated)
        shards.check_complete(STAGE, self.num_members, sum(num_slices.values()) + num_bad)
        shards.remove_stale(layout.metadata_parts, receipts)
        manifest: dict[str, Any] = {
            "archive": self.archive_path,
            "fingerprint": shards.fingerprint([r["fingerprint"] for r in receipts]),
            "num_members": self.num_members,
            "num_slices": num_slices,
            "num_quarantined": num_bad,
        }
        storage.write_json(layout.metadata_manifest, manifest)

    def _merge(
        self, layout: DataLayout, receipts: list[shards.Receipt], repeated: dict[Row, BadSlice]
    ) -> dict[str, int]:
        """Writes both files and returns how many rows each has."""
        counts = {"train": 0, "test": 0}
        with (
            storage.open_atomic(layout.metadata_csv("train")) as train,
            storage.open_atomic(layout.metadata_csv("test")) as test,
        ):
            files = {"train": train, "test": test}
            for file in files.values():
                file.write((",".join(COLUMNS) + "\n").encode())
            for subset, row in read_rows(layout.metadata_parts, receipts):
                if (subset, row) not in repeated:
                    files[subset].write(row)
                    counts[subset] += 1
        return counts
