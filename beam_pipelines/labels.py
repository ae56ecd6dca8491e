"""Kaggle's label file: `ID,Label` rows to one row of six labels a slice.

The stage 2 file has 4,516,842 rows, among them 24 duplicates. Columns are handled whole, by Arrow:
pandas needs ten times the memory for as many Python strings.
"""

from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from beam_pipelines.errors import UserError
from beam_pipelines.schema import NUM_LABELS, SUBTYPES

# An image id is also a cell of a CSV: no commas, quotes, line breaks or formulas.
_ID = r"^(?P<image_id>[A-Za-z0-9][A-Za-z0-9._-]*)_(?P<subtype>[^_]+)$"
# Ids and subtypes that are named in an error.
_NAMED = 5


@dataclass(frozen=True)
class Labels:
    """Labels of slices.

    Attributes:
        image_ids: string array of length num_slices, in the order of their first row.
        values: int8 (num_slices, 6), 0 or 1, columns in the order of SUBTYPES.
        duplicates: rows that said again what another row had said.
    """

    image_ids: pa.Array
    values: np.ndarray
    duplicates: int


def read_labels(file: IO[bytes], where: str) -> Labels:
    """Reads and checks a label file.

    Args:
        file: CSV with the columns ID (`<image id>_<subtype>`) and Label (0 or 1).
        where: how an error names the file.

    Raises:
        UserError: a column is missing, a subtype is not known, a label is not 0 or 1, rows
            contradict each other, or a slice lacks a subtype; with the ids concerned.
    """
    options = pa_csv.ConvertOptions(
        column_types={"ID": pa.string(), "Label": pa.int64()}, include_columns=["ID", "Label"]
    )
    try:
        table = pa_csv.read_csv(file, convert_options=options)
    except pa.ArrowKeyError as error:
        raise UserError(f"labels {where}: {error}; give a CSV with the columns ID,Label") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"labels {where}: not a label table: {error}") from None
    ids = table["ID"].combine_chunks()
    label = table["Label"].to_numpy()
    if len(ids) == 0:
        raise UserError(f"labels {where}: has no rows; give Kaggle's stage_2_train.csv")
    image_ids, subtypes = _split_ids(ids, where)
    wrong = np.flatnonzero((label != 0) & (label != 1))
    if len(wrong):
        raise UserError(f"labels {where}: labels must be 0 or 1, but not of {_name(ids, wrong)}")
    encoded = image_ids.dictionary_encode()
    rows = encoded.indices.to_numpy()
    return _fill(encoded.dictionary, rows, subtypes, label.astype(np.int8), where)


def _split_ids(ids: pa.Array, where: str) -> tuple[pa.Array, np.ndarray]:
    """Image ids, and the subtype's number as int8 (num_rows,)."""
    parts = pc.extract_regex(ids, _ID)
    malformed = np.flatnonzero(pc.is_null(parts).to_numpy(zero_copy_only=False))
    if len(malformed):
        raise UserError(
            f"labels {where}: IDs must look like ID_012345678_epidural, but not "
            f"{_name(ids, malformed)}"
        )
    image_ids, names = parts.flatten()
    numbers = pc.index_in(names, value_set=pa.array(SUBTYPES))
    unknown = np.flatnonzero(pc.is_null(numbers).to_numpy(zero_copy_only=False))
    if len(unknown):
        raise UserError(
            f"labels {where}: unknown subtype in {_name(ids, unknown)}; "
            f"known: {', '.join(SUBTYPES)}"
        )
    return image_ids, numbers.to_numpy().astype(np.int8)


def _fill(
    image_ids: pa.Array, rows: np.ndarray, columns: np.ndarray, label: np.ndarray, where: str
) -> Labels:
    """Puts every row's label into its cell and checks that rows agree and cells are filled."""
    values = np.full((len(image_ids), NUM_LABELS), -1, np.int8)
    values[rows, columns] = label
    conflicting = np.flatnonzero(values[rows, columns] != label)
    if len(conflicting):
        cells = sorted({(int(rows[i]), int(columns[i])) for i in conflicting})
        names = [f"{image_ids[r].as_py()}_{SUBTYPES[c]}" for r, c in cells]
        raise UserError(
            f"labels {where}: {len(names)} IDs have rows that contradict each other: "
            f"{_shorten(names)}; keep the right row of each"
        )
    missing = np.argwhere(values < 0)
    if len(missing):
        names = [f"{image_ids[int(r)].as_py()}_{SUBTYPES[c]}" for r, c in missing]
        raise UserError(f"labels {where}: {len(names)} rows are missing: {_shorten(names)}")
    return Labels(image_ids, values, len(rows) - values.size)


def _name(ids: pa.Array, rows: np.ndarray) -> str:
    return _shorten([ids[int(i)].as_py() for i in rows])


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def reshaped_table(labels: Labels) -> pa.Table:
    """One row a slice: image_id and one column a subtype."""
    columns = {name: pa.array(labels.values[:, i]) for i, name in enumerate(SUBTYPES)}
    return pa.table({"image_id": labels.image_ids, **columns})


def processed_table(labels: Labels) -> pa.Table:
    """Six rows a slice: image_id, subtype, label."""
    count = len(labels.image_ids)
    rows = np.repeat(np.arange(count), NUM_LABELS)
    subtypes = pa.DictionaryArray.from_arrays(
        np.tile(np.arange(NUM_LABELS, dtype=np.int8), count), pa.array(SUBTYPES)
    )
    return pa.table(
        {
            "image_id": labels.image_ids.take(pa.array(rows)),
            "subtype": subtypes.cast(pa.string()),
            "label": pa.array(labels.values.reshape(-1)),
        }
    )


def write_csv(table: pa.Table, file: IO[bytes]) -> None:
    """Writes a table as CSV without quotes; ids hold no commas, `read_labels` has seen to that."""
    # Arrow quotes the header whatever the style.
    file.write((",".join(table.column_names) + "\n").encode())
    options = pa_csv.WriteOptions(quoting_style="none", include_header=False)
    pa_csv.write_csv(table, file, options)
