"""Prepares what the bare loop is given: where each slice lies, and what its record says.

Everything that build_examples does to references (labels, splits, shards, order) is done here,
unmeasured, so that the bare loop does nothing but read, decode, encode and write.

    python -m benchmarks.bare_references --archive A.zip --data_dir DATA --output refs.pickle
"""

import argparse
import collections
import csv
import os
import pickle
import struct
from pathlib import Path
from typing import NamedTuple

from beam_pipelines import schema
from beam_pipelines.build_examples import num_shards
from beam_pipelines.layout import DataLayout, shard_name
from beam_pipelines.metadata import read_metadata_manifest
from beam_pipelines.series import ShardKey, batch_by_shard, group_series, order_series
from beam_pipelines.slice_references import (
    SliceReference,
    parse_references,
    row_blocks,
    unpack_rows,
)
from configs import ExamplesConfig

_LOCAL_HEADER_BYTES = 30


class BareSlice(NamedTuple):
    """A slice to be read and written.

    Attributes:
        offset: of the deflated bytes in the archive.
        compressed_size: their number.
        size: of the DICOM file.
        crc: CRC-32 of the DICOM file.
        fields: of its `schema.Slice`.
    """

    offset: int
    compressed_size: int
    size: int
    crc: int
    fields: tuple[object, ...]


class BareShard(NamedTuple):
    """A file to be written: its path under the output folder, and its slices in order."""

    path: str
    slices: list[BareSlice]


def prepare(archive: Path, data_dir: Path, slices_per_shard: int) -> list[BareShard]:
    """The shards that build_examples makes, in the order of their names."""
    layout = DataLayout(str(data_dir))
    config = ExamplesConfig(slices_per_shard=slices_per_shard)
    counts = num_shards(read_metadata_manifest(layout)["num_slices"], config)
    with open(layout.reshaped_labels_csv) as file:  # noqa: PTH123 - a path as text
        labels = {row[0]: tuple(map(int, row[1:])) for row in list(csv.reader(file))[1:]}
    grouped: dict[ShardKey, list[SliceReference]] = collections.defaultdict(list)
    for block in row_blocks(layout):
        for key, batch in batch_by_shard(block, config, counts):
            for reference in parse_references(unpack_rows(batch), block.subset):
                grouped[key].append(reference._replace(label=labels.get(reference.image_id)))
    descriptor = os.open(archive, os.O_RDONLY)
    try:
        return [
            BareShard(
                f"{key.split}/{shard_name(key.shard, counts[key.split])}",
                [
                    _bare_slice(descriptor, reference, item)
                    for series in group_series(references)
                    for reference, item in order_series(series)
                ],
            )
            for key, references in sorted(grouped.items())
        ]
    finally:
        os.close(descriptor)


def _bare_slice(descriptor: int, reference: SliceReference, item: schema.Slice) -> BareSlice:
    member = reference.member
    header = os.pread(descriptor, _LOCAL_HEADER_BYTES, member.offset)
    name_length, extra_length = struct.unpack_from("<2H", header, 26)
    offset = member.offset + _LOCAL_HEADER_BYTES + name_length + extra_length
    fields = tuple(vars(item).values())
    return BareSlice(offset, member.compressed_size, member.size, member.crc, fields)


def main() -> None:
    """Writes the shards to a pickle."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bare_references", description=__doc__
    )
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--slices_per_shard", type=int, default=ExamplesConfig().slices_per_shard)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    shards = prepare(args.archive, args.data_dir, args.slices_per_shard)
    args.output.write_bytes(pickle.dumps(shards))


if __name__ == "__main__":
    # Under its own name, so that what it pickles can be read by others.
    from benchmarks import bare_references

    bare_references.main()
