"""The bare loop: the best pieces one after the other, without Beam, the floor of build_examples.

    python -m benchmarks.bare_loop --archive A.zip --references refs.pickle --output out --workers 2

It reads, inflates, checks, decodes, windows, resizes, encodes and writes each slice, and no more:
no ordering, no counting, no receipts, no fingerprints. What decodes and draws is the project's own;
`benchmarks.bare_references` has prepared the rest. With two workers it is a bare pool: processes
that take one equal piece after the other, so that neither waits for the other.
"""

import argparse
import itertools
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import deflate

from beam_pipelines import images, schema, tfrecord
from beam_pipelines.pixels import read_stored
from beam_pipelines.rendering import Renderer
from benchmarks.bare_references import BareShard, BareSlice
from configs import ExamplesConfig

# Pieces that the workers of a pool share out: few enough to cost nothing, enough to end together.
_PIECES = 40


@dataclass(frozen=True)
class BareLoop:
    """What one process needs: the archive, the output folder and the image's settings."""

    archive: Path
    output: Path
    config: ExamplesConfig

    def __call__(self, shards: Sequence[BareShard]) -> None:
        """Writes shards, one file each."""
        size = self.config.image_size
        render = Renderer(self.config.windows, size)
        image_format, quality = self.config.image_format, self.config.jpeg_quality
        descriptor = os.open(self.archive, os.O_RDONLY)
        for shard in shards:
            path = self.output / shard.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for reference in shard.slices:
                    image = render(*read_stored(read_member(descriptor, reference)))
                    encoded = images.encode(image, image_format, quality)
                    item = schema.Slice(*reference.fields)  # type: ignore[arg-type]
                    record = schema.encode_example(item, encoded, image_format, size, size)
                    tfrecord.write_record(file, record)
        os.close(descriptor)


def read_member(descriptor: int, reference: BareSlice) -> bytes:
    """The DICOM file of a slice, its checksum checked."""
    compressed = os.pread(descriptor, reference.compressed_size, reference.offset)
    data = deflate.deflate_decompress(compressed, reference.size)
    if deflate.crc32(data) != reference.crc:
        raise ValueError(f"wrong CRC-32 at {reference.offset}")
    return data


def equal_pieces(shards: Sequence[BareShard], count: int) -> list[BareShard]:
    """The slices of all shards in `count` files of equal size."""
    slices = [slice_ for shard in shards for slice_ in shard.slices]
    bounds = [len(slices) * i // count for i in range(count + 1)]
    return [
        BareShard(f"piece-{i:03d}.tfrecord", slices[start:end])
        for i, (start, end) in enumerate(itertools.pairwise(bounds))
    ]


def run(loop: BareLoop, shards: Sequence[BareShard], workers: int) -> None:
    """Writes all shards, in this process or by a pool."""
    if workers == 1:
        loop(shards)
        return
    pieces = equal_pieces(shards, _PIECES)
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for _ in pool.imap_unordered(loop, [[piece] for piece in pieces]):
            pass
        pool.close()
        pool.join()


def main() -> None:
    """Runs the loop over all references."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare_loop", description=__doc__)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--image_size", type=int, default=ExamplesConfig().image_size)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    config = ExamplesConfig(image_size=args.image_size, channels="windows", crop="none")
    shards = pickle.loads(args.references.read_bytes())
    run(BareLoop(args.archive, args.output, config), shards, args.workers)


if __name__ == "__main__":
    main()
