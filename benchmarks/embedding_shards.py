"""Makes the embeddings of any number of slices, without a model: what build_sequences reads.

    python -m benchmarks.embedding_shards --data_dir DATA --slices 874000 --series 25000 --dim 1536

The slices of a split are dealt to its shards at random, so a series lies in many shards and in no
order. The base experiment is there with all but its model, which build_sequences does not read.
"""

import argparse
from pathlib import Path

import numpy as np

from beam_pipelines import schema, shards, tfrecord
from beam_pipelines.embeddings import STAGE
from beam_pipelines.layout import SPLITS, DataLayout, shard_name
from beam_pipelines.splits import shards_for
from benchmarks.experiments import BASE_ID, write_base_experiment
from benchmarks.synthetic_series import SyntheticSeries, Vectors, draw_series, totals
from configs import Config, ExamplesConfig


def write_split(
    layout: DataLayout, split: str, series: list[SyntheticSeries], vectors: Vectors, dim: int
) -> None:
    """Writes the embedding shards and the manifest of a split."""
    folder = layout.embeddings(BASE_ID, split)
    # Number of the series, and of the slice in it, of every slice: 16 bytes a slice.
    pairs = np.array([(n, i) for n, s in enumerate(series) for i in range(s.num_slices)], np.int64)
    pairs = np.random.default_rng(1).permutation(pairs.reshape(-1, 2))
    num_shards = shards_for(len(pairs), ExamplesConfig().slices_per_shard)
    receipts = []
    for number, part in enumerate(np.array_split(pairs, num_shards)):
        name = shard_name(number, num_shards)
        fingerprint = shards.fingerprint(split, number, num_shards)
        embeddings, logits = vectors.of(part[:, 0] * 31 + part[:, 1])
        with shards.write_shard(folder, name, fingerprint) as (file, receipt):
            for row, (owner, index) in enumerate(part.tolist()):
                item = series[owner].item(index)
                record = schema.encode_embedding(item, embeddings[row], logits[row])
                tfrecord.write_record(file, record)
            receipt["num_slices"] = len(part)
        receipts.append(receipt)
    settings = {
        "model_id": BASE_ID,
        "embedding_dim": dim,
        "examples_fingerprint": f"examples-{split}",
        "val_ratio": ExamplesConfig().val_ratio,
    }
    shards.publish_manifest(folder, STAGE, settings, receipts, **totals(series))


def main() -> None:
    """Makes the embeddings of all splits."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.embedding_shards", description=__doc__
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--slices", type=int, required=True)
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--dim", type=int, default=1536)
    args = parser.parse_args()
    layout, vectors = DataLayout(str(args.data_dir)), Vectors(args.dim)
    drawn = draw_series(args.slices, args.series)
    for split in SPLITS:
        mine = [series for series in drawn if series.split == split]
        write_split(layout, split, mine, vectors, args.dim)
    write_base_experiment(args.data_dir, Config())


if __name__ == "__main__":
    main()
