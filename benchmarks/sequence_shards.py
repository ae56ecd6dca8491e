"""Makes the test sequences of any number of slices, and their metadata: what predict reads.

python -m benchmarks.sequence_shards --data_dir DATA --slices 121232 --dim 1536
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from beam_pipelines import schema, shards, tfrecord
from beam_pipelines.layout import DataLayout, shard_name
from beam_pipelines.metadata import COLUMNS
from beam_pipelines.sequence_shards import STAGE, make_windows
from beam_pipelines.slice_features import SLICE_FEATURES
from beam_pipelines.splits import shards_for
from benchmarks.experiments import BASE_ID
from benchmarks.synthetic_series import SyntheticSeries, Vectors, draw_series, totals
from configs import ExamplesConfig, SequenceConfig

_SLICES_A_SERIES = 35


def _as_test(series: SyntheticSeries) -> SyntheticSeries:
    return SyntheticSeries(series.number, series.num_slices, "test", series.labels)


def write_sequences(layout: DataLayout, series: list[SyntheticSeries], dim: int) -> None:
    """Writes the sequence shards and the manifest of the test split."""
    folder, vectors = layout.sequences(BASE_ID, "test"), Vectors(dim)
    max_to_keep = SequenceConfig().max_to_keep
    num_slices = sum(s.num_slices for s in series)
    num_shards = shards_for(num_slices, ExamplesConfig().slices_per_shard)
    features = np.random.default_rng(1).standard_normal((4096, len(SLICE_FEATURES)))
    receipts = []
    for number in range(num_shards):
        name = shard_name(number, num_shards)
        mine = series[number::num_shards]
        written = 0
        with shards.write_shard(folder, name, shards.fingerprint(number)) as (file, receipt):
            for one in mine:
                items = [one.item(index) for index in range(one.num_slices)]
                embeddings, logits = vectors.of(one.number * 31 + np.arange(one.num_slices))
                scaled = features[: one.num_slices].astype(np.float32)
                for window in make_windows(items, embeddings, logits, scaled, max_to_keep):
                    tfrecord.write_record(file, schema.encode_sequence(window))
                    written += 1
            receipt.update(num_slices=sum(s.num_slices for s in mine), num_sequences=written)
        receipts.append(receipt)
    settings = {
        "model_id": BASE_ID,
        "max_to_keep": max_to_keep,
        "embedding_dim": dim,
        "slice_features": list(SLICE_FEATURES),
        "num_slice_features": len(SLICE_FEATURES),
        "val_ratio": ExamplesConfig().val_ratio,
    }
    num_sequences = sum(receipt["num_sequences"] for receipt in receipts)
    shards.publish_manifest(
        folder, STAGE, settings, receipts, num_sequences=num_sequences, **totals(series)
    )


def write_metadata(layout: DataLayout, series: list[SyntheticSeries]) -> None:
    """Writes the test metadata: what predict checks its result against."""
    fixed = dict.fromkeys(COLUMNS, "0") | {"InstanceNumber": "", "PixelSpacing_0": ""}
    with open(layout.metadata_csv("test"), "w", newline="") as file:  # noqa: PTH123 - a text
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for one in series:
            for index in range(one.num_slices):
                item = one.item(index)
                writer.writerow(
                    {
                        **fixed,
                        "SOPInstanceUID": item.image_id,
                        "PatientID": item.patient_id,
                        "StudyInstanceUID": item.study_instance_uid,
                        "SeriesInstanceUID": item.series_instance_uid,
                        "member_name": f"stage_2_test/{item.image_id}.dcm",
                    }
                )


def main() -> None:
    """Makes sequences and metadata."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sequence_shards", description=__doc__
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--slices", type=int, required=True)
    parser.add_argument("--dim", type=int, default=1536)
    args = parser.parse_args()
    layout = DataLayout(str(args.data_dir))
    count = max(1, args.slices // _SLICES_A_SERIES)
    series = [_as_test(one) for one in draw_series(args.slices, count)]
    write_sequences(layout, series, args.dim)
    write_metadata(layout, series)


if __name__ == "__main__":
    main()
