"""Which slices belong together: the shard and the series of each, and its place in the series."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from beam_pipelines import schema
from beam_pipelines.slice_order import gaps, slice_order, slice_positions
from beam_pipelines.slice_references import (
    RowBlock,
    SliceReference,
    pack_rows,
    patient_ids,
    read_block,
)
from beam_pipelines.splits import shard_of, split_of
from configs import ExamplesConfig


class ShardKey(NamedTuple):
    """A shard of examples: split and number."""

    split: str
    shard: int


def batch_by_shard(
    block: RowBlock, config: ExamplesConfig, num_shards: dict[str, int]
) -> Iterator[tuple[ShardKey, bytes]]:
    """Sorts rows of a metadata file into the shards that their patients' slices belong to.

    Yields:
        For each shard that has any the packed rows, see `slice_references.pack_rows`.
    """
    by_shard: dict[ShardKey, list[str]] = {}
    keys: dict[str, ShardKey] = {}
    rows = read_block(block)
    for row, patient_id in zip(rows, patient_ids(rows), strict=True):
        key = keys.get(patient_id)
        if key is None:
            split = split_of(patient_id, block.subset, config.val_ratio, config.split_salt)
            key = keys[patient_id] = ShardKey(split, shard_of(patient_id, num_shards[split]))
        by_shard.setdefault(key, []).append(row)
    # Largest first: the embedded runner builds shards in the order in which it first hears of them,
    # and a large one that is begun last would keep one core busy alone.
    for key, batch in sorted(by_shard.items(), key=lambda item: len(item[1]), reverse=True):
        yield key, pack_rows(batch)


def group_series(references: Iterable[SliceReference]) -> list[list[SliceReference]]:
    """Series in a stable order; within one, slices by image id. Input order does not matter."""

    def series(reference: SliceReference) -> tuple[str, str, str]:
        r = reference
        return r.patient_id, r.study_instance_uid, r.series_instance_uid

    ordered = sorted(references, key=lambda r: (series(r), r.image_id, r.member))
    return [list(group) for _, group in itertools.groupby(ordered, key=series)]


def order_series(references: Sequence[SliceReference]) -> list[tuple[SliceReference, schema.Slice]]:
    """Puts the usable slices of a series in anatomical order.

    Args:
        references: slices of one series.

    Returns:
        Each slice with its place in the series.

    Raises:
        ValueError: the slices' orientations span no plane.
    """
    if not references:
        return []
    positions = slice_positions(
        np.array([r.image_position_patient for r in references], np.float64),
        np.array([r.image_orientation_patient for r in references], np.float64),
    )
    order = slice_order(
        positions, [r.instance_number for r in references], [r.image_id for r in references]
    )
    below, above = gaps(positions[order])
    return [
        (
            references[i],
            schema.Slice(
                image_id=references[i].image_id,
                patient_id=references[i].patient_id,
                study_instance_uid=references[i].study_instance_uid,
                series_instance_uid=references[i].series_instance_uid,
                index=index,
                num_slices=len(order),
                position_mm=float(positions[i]),
                gap_below_mm=float(below[index]),
                gap_above_mm=float(above[index]),
                pixel_spacing_mm=references[i].pixel_spacing_mm,
                label=references[i].label,
            ),
        )
        for index, i in enumerate(order)
    ]
