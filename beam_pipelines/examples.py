"""Slices to example records, a shard at a time, with a receipt each."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from beam_pipelines import schema, shards, tfrecord
from beam_pipelines.archive import open_archive
from beam_pipelines.label_table import LabelTable, empty_table, read_label_table
from beam_pipelines.layout import SPLITS, DataLayout, shard_name
from beam_pipelines.progress import Advance, no_progress
from beam_pipelines.quarantine import BadSlice, settle
from beam_pipelines.series import ShardKey, group_series
from beam_pipelines.series_images import SeriesEncoder
from beam_pipelines.slice_references import SliceReference, parse_references, unpack_rows
from configs import ExamplesConfig
from configs.loader import to_mapping

STAGE = "build_examples"
HOW_TO_MAKE = "python -m beam_pipelines.build_examples"


@dataclass
class ExampleBuilder:
    """Writes the examples of one shard, series by series.

    Attributes:
        archive_path: the archive.
        data_dir: data root.
        config: how images are made.
        num_shards: shards of each split.
        labels_csv: `reshaped_stage_2_train.csv`, None where no slice has labels.
    """

    archive_path: str
    data_dir: str
    config: ExamplesConfig
    num_shards: dict[str, int]
    labels_csv: str | None
    _encoder: SeriesEncoder | None = field(default=None, repr=False)
    _labels: LabelTable | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Opens the archive, reads the labels and makes the window tables."""
        self._encoder = SeriesEncoder(open_archive(self.archive_path), self.config)
        self._labels = read_label_table(self.labels_csv) if self.labels_csv else empty_table()

    def build(
        self, task: tuple[ShardKey, Iterable[bytes]], advance: Advance = no_progress
    ) -> shards.Receipt:
        """Writes one shard; see `transforms.Builder`."""
        (split, shard), batches = task
        folder = DataLayout(self.data_dir).examples(split)
        name = shard_name(shard, self.num_shards[split])
        # Batches come in any order.
        rows = sorted(row for batch in batches for row in unpack_rows(batch))
        references = self._with_labels(rows, split)
        inputs = shards.fingerprint(rows, [reference.label for reference in references])
        settings = to_mapping(self.config)
        expected = shards.fingerprint(STAGE, schema.FORMAT_VERSION, settings, split, inputs)
        series = group_series(references)
        return shards.build_shard(
            folder, name, expected, lambda file: self._write(file, split, series, advance)
        )

    def _with_labels(self, rows: list[str], split: str) -> list[SliceReference]:
        assert self._labels is not None, "setup comes first"
        references = list(parse_references(rows, "test" if split == "test" else "train"))
        labels = self._labels.find([reference.image_id for reference in references])
        return [r._replace(label=label) for r, label in zip(references, labels, strict=True)]

    def _write(
        self,
        file: IO[bytes],
        split: str,
        series: list[list[SliceReference]],
        advance: Advance,
    ) -> shards.Receipt:
        assert self._encoder is not None, "setup comes first"
        summary = _Summary(split)
        width = self.config.image_size
        height = width * len(self.config.channel_windows) // 3
        for references in series:
            written, num_bad = summary.num_slices, len(summary.quarantined)
            for item, image in self._encoder(references, summary.reject):
                record = schema.encode_example(item, image, self.config.image_format, height, width)
                tfrecord.write_record(file, record)
                summary.add(item)
            advance(summary.num_slices - written, len(summary.quarantined) - num_bad)
        return summary.receipt(slices_in=sum(map(len, series)))


@dataclass
class _Summary:
    """Counts of a shard, for its receipt."""

    split: str
    quarantined: list[BadSlice] = field(default_factory=list)
    num_slices: int = 0
    num_labelled: int = 0
    label_counts: np.ndarray = field(default_factory=lambda: np.zeros(schema.NUM_LABELS, np.int64))
    patients: set[str] = field(default_factory=set)
    series: set[tuple[str, str]] = field(default_factory=set)

    def add(self, item: schema.Slice) -> None:
        self.num_slices += 1
        self.patients.add(item.patient_id)
        self.series.add((item.study_instance_uid, item.series_instance_uid))
        if item.label is not None:
            self.num_labelled += 1
            self.label_counts += np.array(item.label)

    def reject(self, reference: SliceReference, reason: str) -> None:
        r = reference
        self.quarantined.append(BadSlice(r.member.name, r.image_id, r.subset, STAGE, reason))

    def receipt(self, slices_in: int) -> shards.Receipt:
        return {
            "split": self.split,
            "slices_in": slices_in,
            "num_slices": self.num_slices,
            "num_labelled": self.num_labelled,
            "num_patients": len(self.patients),
            "num_series": len(self.series),
            "label_counts": self.label_counts.tolist(),
            "quarantined": self.quarantined,
        }


@dataclass(frozen=True)
class PublishExamples:
    """Writes the quarantine file and each split's manifest once all shards are there.

    Attributes:
        data_dir: data root.
        config: how images were made.
        num_slices: rows of metadata that came in.
        max_bad_fraction: largest share of them that may be in quarantine.
    """

    data_dir: str
    config: ExamplesConfig
    num_slices: int
    max_bad_fraction: float

    def __call__(self, receipts: list[shards.Receipt]) -> None:
        """Publishes; raises UserError where too many slices are bad."""
        layout = DataLayout(self.data_dir)
        settle(layout, STAGE, receipts, self.num_slices, self.max_bad_fraction)
        for split in SPLITS:
            mine = [receipt for receipt in receipts if receipt["split"] == split]
            shards.publish_manifest(
                layout.examples(split),
                STAGE,
                dataclasses.asdict(self.config),
                [shards.for_manifest(receipt) for receipt in mine],
                **shards.totals_of(mine),
            )
