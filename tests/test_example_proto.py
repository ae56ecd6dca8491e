import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.example_proto import decode, encode

features = st.dictionaries(
    st.text(max_size=9),
    st.one_of(
        st.lists(st.binary(max_size=9), min_size=1, max_size=4),
        st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=4),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
    ),
    max_size=6,
)


@given(features)
def test_round_trip(values: dict[str, list]):
    assert decode(encode(values)) == values


@given(features)
def test_equal_features_give_equal_bytes(values: dict[str, list]):
    assert encode(dict(reversed(values.items()))) == encode(values)


def test_single_values_and_text():
    found = decode(encode({"a": "ä", "b": b"\xff", "c": 7, "d": 0.5, "e": np.int64([1, 2])}))
    assert found == {"a": ["ä".encode()], "b": [b"\xff"], "c": [7], "d": [0.5], "e": [1, 2]}


def test_tensorflow_reads_what_is_written():
    import tensorflow as tf

    example = tf.train.Example.FromString(encode({"a": "text", "b": [1, -2], "c": [0.5]}))
    feature = example.features.feature
    assert feature["a"].bytes_list.value == [b"text"]
    assert feature["b"].int64_list.value == [1, -2]
    assert feature["c"].float_list.value == [0.5]


def test_what_is_no_example_is_refused():
    with pytest.raises(DecodeError):
        decode(b"\xff\xff\xff")
