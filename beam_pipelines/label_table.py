"""The labels of every slice, small enough to be held by each worker.

The real archive's take 14 MB: image ids of 12 bytes and six numbers of one, sorted to be searched.
Joining them by a shuffle would cost more than all else that is shuffled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from beam_pipelines import storage
from beam_pipelines.schema import NUM_LABELS, SUBTYPES

_ID = "image_id"


@dataclass(frozen=True)
class LabelTable:
    """Labels by image id.

    Attributes:
        image_ids: bytes, fixed width, (num_slices,), sorted.
        values: int8 (num_slices, 6), columns in the order of SUBTYPES.
    """

    image_ids: np.ndarray
    values: np.ndarray

    def find(self, image_ids: Sequence[str]) -> list[tuple[int, ...] | None]:
        """The labels of some slices, None for a slice without labels."""
        if not len(self.image_ids) or not image_ids:
            return [None] * len(image_ids)
        wanted = np.array([image_id.encode() for image_id in image_ids])
        places = np.searchsorted(self.image_ids, wanted).clip(max=len(self.image_ids) - 1)
        known = self.image_ids[places] == wanted
        rows = self.values[places].tolist()
        return [tuple(row) if there else None for row, there in zip(rows, known, strict=True)]


def empty_table() -> LabelTable:
    """Labels of no slice."""
    return LabelTable(np.empty(0, "S1"), np.empty((0, NUM_LABELS), np.int8))


def read_label_table(path: str) -> LabelTable:
    """Reads `reshaped_stage_2_train.csv`, block by block."""
    options = pa_csv.ConvertOptions(
        column_types={_ID: pa.string(), **dict.fromkeys(SUBTYPES, pa.int8())}
    )
    ids, values = [], []
    with storage.open_read(path) as file:
        for batch in pa_csv.open_csv(file, convert_options=options):
            ids.append(np.array(batch[_ID].to_pylist(), np.bytes_))
            values.append(np.stack([batch[name].to_numpy() for name in SUBTYPES], axis=1))
    if not ids:
        return empty_table()
    image_ids = np.concatenate(ids)
    order = np.argsort(image_ids)
    return LabelTable(image_ids[order], np.concatenate(values)[order])
