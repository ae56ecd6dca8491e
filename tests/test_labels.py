import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import label_csv, label_rows, make_slices

from beam_pipelines.errors import UserError
from beam_pipelines.labels import Labels, processed_table, read_labels, reshaped_table, write_csv
from beam_pipelines.schema import NUM_LABELS, SUBTYPES

TWO = [
    *((f"ID_b_{name}", value) for name, value in zip(SUBTYPES, (0, 1, 0, 0, 0, 1), strict=True)),
    *((f"ID_a_{name}", value) for name, value in zip(SUBTYPES, (0, 0, 0, 0, 0, 0), strict=True)),
]
ROWS = {"ID_b": (0, 1, 0, 0, 0, 1), "ID_a": (0,) * 6}


def read(data: bytes) -> Labels:
    return read_labels(io.BytesIO(data), "labels.csv")


def as_dict(labels: Labels) -> dict[str, tuple[int, ...]]:
    rows = labels.values.tolist()
    return {i: tuple(row) for i, row in zip(labels.image_ids.to_pylist(), rows, strict=True)}


def error_of(data: bytes) -> str:
    with pytest.raises(UserError) as error:
        read(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_row_a_slice_in_the_order_of_the_file():
    labels = read(label_csv(TWO))
    assert as_dict(labels) == ROWS
    assert labels.image_ids.to_pylist() == ["ID_b", "ID_a"]
    assert labels.values.dtype == np.int8
    assert labels.duplicates == 0


@given(st.randoms())
def test_the_order_of_the_rows_does_not_matter(random):
    rows = list(TWO)
    random.shuffle(rows)
    assert as_dict(read(label_csv(rows))) == ROWS


def test_duplicates_that_agree_are_counted():
    assert read(label_csv([*TWO, *TWO[:6]])).duplicates == 6
    assert as_dict(read(label_csv([*TWO, *TWO[:6]]))) == ROWS


@pytest.mark.parametrize(
    "data",
    [
        label_csv(TWO).replace(b"\n", b"\r\n"),
        label_csv(TWO).rstrip(b"\n"),
        b"\xef\xbb\xbf" + label_csv(TWO),
        b"".join(b'"' + line.replace(b",", b'","') + b'"\n' for line in label_csv(TWO).split()),
        b"".join(line + b",more\n" for line in label_csv(TWO).split()),
        b"".join(b",".join(line.split(b",")[::-1]) + b"\n" for line in label_csv(TWO).split()),
    ],
    ids=["crlf", "no last newline", "bom", "quotes", "more columns", "other order"],
)
def test_other_spellings_of_the_same_file(data: bytes):
    assert as_dict(read(data)) == ROWS


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*TWO, ("ID_b_any", 0), ("ID_a_epidural", 1), ("ID_a_epidural", 1)],
            "labels labels.csv: 2 IDs have rows that contradict each other: ID_b_any, "
            "ID_a_epidural; keep the right row of each",
        ),
        (
            [*TWO, ("ID_c_any", 0)],
            "labels labels.csv: 5 rows are missing: ID_c_epidural, ID_c_intraparenchymal, "
            "ID_c_intraventricular, ID_c_subarachnoid, ID_c_subdural",
        ),
        (
            [*TWO, ("ID_c_any", 0), ("ID_d_any", 0)],
            "labels labels.csv: 10 rows are missing: ID_c_epidural, ID_c_intraparenchymal, "
            "ID_c_intraventricular, ID_c_subarachnoid, ID_c_subdural and 5 more",
        ),
        (
            [*TWO, ("ID_a_extradural", 0)],
            "labels labels.csv: unknown subtype in ID_a_extradural; known: epidural, "
            "intraparenchymal, intraventricular, subarachnoid, subdural, any",
        ),
        (
            [*TWO, ("ID_c_any", 2), ("ID_d_any", -1)],
            "labels labels.csv: labels must be 0 or 1, but not of ID_c_any, ID_d_any",
        ),
        (
            [*TWO, ("ID_c_any", "")],
            "labels labels.csv: labels must be 0 or 1, but not of ID_c_any",
        ),
        (
            [*TWO, ("epidural", 0), ('"=1+1_any"', 0)],
            "labels labels.csv: IDs must look like ID_012345678_epidural, but not epidural, "
            "=1+1_any",
        ),
        ([], "labels labels.csv: has no rows; give Kaggle's stage_2_train.csv"),
    ],
)
def test_what_is_wrong_is_named(rows: list, message: str):
    assert error_of(label_csv(rows)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ID,Etikett\nID_a_any,0\n",
        b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe",
        b"ID,Label\nID_a_any,maybe\n",
        b"ID,Label\nID_a_any,0,7,8\n",
        b"ID,Label\n\xff\xfe\xfd_any,0\n",
    ],
    ids=["empty", "column", "png", "text", "columns", "latin"],
)
def test_what_is_no_label_table_is_refused_in_one_line(data: bytes):
    assert error_of(data).startswith("labels labels.csv: ")


def test_tables_hold_the_labels():
    labels = read(label_csv(TWO))
    for table, expected in (
        (
            reshaped_table(labels),
            "image_id,epidural,intraparenchymal,intraventricular,subarachnoid,subdural,any\n"
            "ID_b,0,1,0,0,0,1\nID_a,0,0,0,0,0,0\n",
        ),
        (
            processed_table(labels).slice(0, 7),
            "image_id,subtype,label\nID_b,epidural,0\nID_b,intraparenchymal,1\n"
            "ID_b,intraventricular,0\nID_b,subarachnoid,0\nID_b,subdural,0\nID_b,any,1\n"
            "ID_a,epidural,0\n",
        ),
    ):
        file = io.BytesIO()
        write_csv(table, file)
        assert file.getvalue().decode() == expected


def test_labels_of_an_archive():
    slices = make_slices()
    labels = read(label_csv(label_rows(slices)))
    assert as_dict(labels) == {s.image_id: s.label for s in slices if s.label is not None}
    assert len(processed_table(labels)) == NUM_LABELS * len(labels.image_ids)
