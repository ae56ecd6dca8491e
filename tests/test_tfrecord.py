import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.tfrecord import OVERHEAD, read_record, read_records, write_record

RECORDS = [b"", b"a", bytes(range(256)) * 9]


def written(records: list[bytes]) -> bytes:
    file = io.BytesIO()
    for record in records:
        assert write_record(file, record) == len(record) + OVERHEAD
    return file.getvalue()


@given(st.lists(st.binary(max_size=300)))
def test_round_trip_with_offsets(records: list[bytes]):
    file = io.BytesIO(written(records))
    found = list(read_records(file, "f"))
    assert [data for _, data in found] == records
    for offset, data in found:
        file.seek(offset)
        assert read_record(file, "f") == data


def test_tensorflow_reads_what_is_written(tmp_path: Path):
    import tensorflow as tf

    (tmp_path / "f").write_bytes(written(RECORDS))
    dataset = tf.data.TFRecordDataset(str(tmp_path / "f"))
    assert list(dataset.as_numpy_iterator()) == RECORDS


def test_what_tensorflow_writes_is_read(tmp_path: Path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "f")) as writer:
        for record in RECORDS:
            writer.write(record)
    data = (tmp_path / "f").read_bytes()
    assert data == written(RECORDS)
    assert [record for _, record in read_records(io.BytesIO(data), "f")] == RECORDS


@pytest.mark.parametrize("cut", [1, 4, 12, 14, 30])
def test_a_cut_record_is_an_error(cut: int):
    data = written([b"x" * 20])
    with pytest.raises(ValueError, match=r"f: a record.* cut short"):
        list(read_records(io.BytesIO(data[:-cut]), "f"))


@given(st.integers(0, 35), st.integers(1, 255))
def test_every_changed_byte_is_noticed(place: int, change: int):
    data = bytearray(written([b"x" * 20]))
    data[place] ^= change
    with pytest.raises(ValueError, match="checksum"):
        list(read_records(io.BytesIO(bytes(data)), "f"))
