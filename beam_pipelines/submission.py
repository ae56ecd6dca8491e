"""The submission that is merged from parts of predictions.

It is Kaggle's `ID,Label`, six rows a slice, and is published only when it holds every slice that
the metadata lists exactly once.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from beam_pipelines import schema, shards, storage
from beam_pipelines.errors import require
from beam_pipelines.examples import STAGE as EXAMPLES_STAGE
from beam_pipelines.layout import DataLayout
from beam_pipelines.metadata import STAGE as METADATA_STAGE
from beam_pipelines.predictions import clip
from beam_pipelines.quarantine import read_quarantine
from beam_pipelines.slice_references import read_references

# Ids that are named in an error.
_NAMED = 5


def expected_image_ids(layout: DataLayout) -> tuple[list[str], list[str]]:
    """The test slices that a submission must hold.

    Returns:
        Image ids that have a prediction, in the order of the metadata, and image ids of slices
        in quarantine, which cannot have one.

    Raises:
        UserError: the metadata is missing.
    """
    subset = "test"
    bad = [b for b in read_quarantine(layout, EXAMPLES_STAGE) if b.subset == subset]
    bad_members = {slice_.member_name for slice_ in bad}
    scored: dict[str, None] = {}
    quarantined: dict[str, None] = {}
    for reference in read_references(layout, subset):
        target = quarantined if reference.member.name in bad_members else scored
        target[reference.image_id] = None
    for slice_ in read_quarantine(layout, METADATA_STAGE):
        if slice_.subset == subset:
            # Of an unreadable header the id is not known; in the archive the file's name is it.
            file_name = slice_.member_name.rsplit("/", 1)[-1]
            quarantined[slice_.image_id or file_name.rsplit(".", 1)[0]] = None
    return list(scored), [image_id for image_id in quarantined if image_id not in scored]


@dataclass(frozen=True)
class PublishPredictions:
    """Merges the parts into the submission.

    Attributes:
        parts_folder: where the parts are.
        output: the CSV to write, local or in a bucket.
        expected: gives `expected_image_ids`, read when it publishes: a job's payload may not be
            large, and those of the whole test part are 3 MB.
        priors: six probabilities, of which a small train split may make 0 or 1.
    """

    parts_folder: str
    output: str
    expected: Callable[[], tuple[list[str], list[str]]]
    priors: tuple[float, ...]

    def __call__(self, receipts: list[shards.Receipt]) -> None:
        """Checks that every slice is there once and writes the CSV."""
        scored, quarantined = self.expected()
        rows = dict(self._read_parts(receipts))
        missing = [image_id for image_id in scored if image_id not in rows]
        require(
            not missing and len(rows) == len(scored),
            f"{self.output}: not written: {len(missing)} of {len(scored)} slices of the "
            f"metadata have no prediction ({', '.join(missing[:_NAMED])}), "
            f"{len(rows) - len(scored) + len(missing)} predictions are of no slice; run the "
            "stages from build_examples on again",
        )
        with storage.open_atomic(self.output) as file:
            file.write(b"ID,Label\n")
            for image_id in scored:
                file.write(_submission_rows(image_id, rows[image_id]))
            priors = [f"{prior:.9f}" for prior in clip(np.array(self.priors))]
            for image_id in quarantined:
                file.write(_submission_rows(image_id, priors))

    def _read_parts(self, receipts: list[shards.Receipt]) -> Iterator[tuple[str, list[str]]]:
        seen: set[str] = set()
        for receipt in receipts:
            text = storage.read_bytes(storage.join(self.parts_folder, receipt["name"])).decode()
            for image_id, *row in csv.reader(io.StringIO(text)):
                require(
                    image_id not in seen,
                    f"{self.parts_folder}: {image_id} has two predictions; run the stages from "
                    "build_examples on again",
                )
                seen.add(image_id)
                yield image_id, row


def _submission_rows(image_id: str, cells: list[str]) -> bytes:
    pairs = zip(schema.SUBTYPES, cells, strict=True)
    return "".join(f"{image_id}_{subtype},{cell}\n" for subtype, cell in pairs).encode()
