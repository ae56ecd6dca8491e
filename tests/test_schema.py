import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines import images, schema
from beam_pipelines.schema import NUM_LABELS, Sequence, Slice

SLICE = Slice("ID_1", "ID_p", "ID_st", "ID_se", 3, 34, -12.5, 4.75, 5.25, 0.5, (0, 1, 0, 0, 0, 1))
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
PNG = cv2.imencode(".png", cv2.cvtColor(IMAGE, cv2.COLOR_RGB2BGR))[1].tobytes()


def make_sequence(labels: bool = True, max_to_keep: int = 4) -> Sequence:
    rng = np.random.default_rng(1)

    def rows(columns: int) -> np.ndarray:
        return rng.normal(size=(max_to_keep, columns)).astype(np.float32)

    return Sequence(
        patient_id="ID_p",
        study_instance_uid="ID_st",
        series_instance_uid="ID_se",
        start=2,
        num_slices=5,
        image_ids=("ID_1", "ID_2", "ID_3", ""),
        embeddings=rows(7),
        logits=rows(NUM_LABELS),
        slice_features=rows(3),
        labels=rng.integers(-1, 2, (max_to_keep, NUM_LABELS)).astype("f4") if labels else None,
        mask=np.array([1, 1, 1, 0], np.uint8),
    )


def in_tf_data(parse: Any, record: bytes) -> dict[str, np.ndarray]:
    import tensorflow as tf

    return next(tf.data.Dataset.from_tensors(record).map(parse).as_numpy_iterator())


def eagerly(parse: Any, record: bytes) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in parse(record).items()}


both = pytest.mark.parametrize("run", [eagerly, in_tf_data])


def test_subtypes_are_in_the_order_of_the_label_file():
    assert schema.SUBTYPES == (
        "epidural",
        "intraparenchymal",
        "intraventricular",
        "subarachnoid",
        "subdural",
        "any",
    )


float32 = st.floats(-1000, 1000, width=32)
text = st.text(max_size=12)


@given(
    st.builds(
        Slice,
        text,
        text,
        text,
        text,
        st.integers(0, 500),
        st.integers(1, 500),
        float32,
        float32,
        float32,
        float32,
        st.none() | st.tuples(*[st.integers(0, 1)] * NUM_LABELS),
    )
)
def test_slices_round_trip_in_both_records(item: Slice):
    image = schema.encode_example(item, b"image", "png", 16, 16)
    embedding = schema.encode_embedding(item, np.zeros(2), np.zeros(6))
    assert schema.decode_slice(image)[0] == item
    assert schema.decode_slice(embedding)[0] == item


def test_example_holds_the_image():
    _, features = schema.decode_slice(schema.encode_example(SLICE, PNG, "png", 16, 12))
    assert features[schema.IMAGE_ENCODED] == [PNG]
    assert features[schema.IMAGE_FORMAT] == [b"png"]
    assert (features[schema.IMAGE_HEIGHT], features[schema.IMAGE_WIDTH]) == ([16], [12])


def test_an_unlabelled_slice_has_no_label_key():
    record = schema.encode_example(dataclasses.replace(SLICE, label=None), PNG, "png", 16, 16)
    assert schema.LABEL not in schema.decode_slice(record)[1]


def test_embedding_round_trip():
    embedding = np.random.default_rng(0).normal(size=1536).astype(np.float32)
    logits = np.arange(6, dtype=np.float32) - 3
    item, found, found_logits = schema.decode_embedding(
        schema.encode_embedding(SLICE, embedding, logits)
    )
    assert item == SLICE
    np.testing.assert_array_equal(found, embedding)
    np.testing.assert_array_equal(found_logits, logits)


@pytest.mark.parametrize("labels", [True, False])
def test_sequence_round_trip(labels: bool):
    sequence = make_sequence(labels)
    found = schema.decode_sequence(schema.encode_sequence(sequence))
    for field in dataclasses.fields(Sequence):
        expected = getattr(sequence, field.name)
        np.testing.assert_array_equal(getattr(found, field.name), expected, err_msg=field.name)


@both
def test_parse_example(run: Any):
    record = schema.encode_example(SLICE, PNG, "png", 16, 16)
    parsed = run(lambda r: schema.parse_example(r, 16), record)
    assert parsed["image_id"] == b"ID_1"
    np.testing.assert_array_equal(parsed["image"], IMAGE)
    assert parsed["label"].tolist() == [0, 1, 0, 0, 0, 1]
    assert parsed["label"].dtype == np.float32


@both
def test_a_jpeg_is_decoded_as_other_programs_decode_it(run: Any):
    """TensorFlow's own default is rougher: 23 grey levels off for some pixels."""
    record = schema.encode_example(SLICE, images.encode(IMAGE, "jpeg"), "jpeg", 16, 16)
    encoded = np.frombuffer(schema.decode_slice(record)[1][schema.IMAGE_ENCODED][0], np.uint8)
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    parsed = run(lambda r: schema.parse_example(r, 16), record)
    np.testing.assert_allclose(parsed["image"].astype(int), expected, atol=1)


@both
def test_parse_an_unlabelled_example(run: Any):
    record = schema.encode_example(dataclasses.replace(SLICE, label=None), PNG, "png", 16, 16)
    assert run(lambda r: schema.parse_example(r, 16), record)["label"].tolist() == [-1] * 6


def test_an_image_of_another_size_is_an_error():
    import tensorflow as tf

    record = schema.encode_example(SLICE, PNG, "png", 16, 16)
    with pytest.raises(tf.errors.InvalidArgumentError):
        schema.parse_example(record, 32)


@both
def test_six_channels_are_two_images_behind_one_another(run: Any):
    stored = np.random.default_rng(2).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    record = schema.encode_example(SLICE, images.encode(stored, "png"), "png", 32, 16)
    image = run(lambda r: schema.parse_example(r, 16, 6), record)["image"]
    assert image.shape == (16, 16, 6)
    np.testing.assert_array_equal(image[..., :3], stored[:16])
    np.testing.assert_array_equal(image[..., 3:], stored[16:])


def test_a_batch_of_six_channels():
    import tensorflow as tf

    rng = np.random.default_rng(3)
    stored = rng.integers(0, 256, (3, 32, 16, 3), dtype=np.uint8)
    records = [
        schema.encode_example(SLICE, images.encode(image, "png"), "png", 32, 16) for image in stored
    ]
    dataset = tf.data.Dataset.from_tensor_slices(records).batch(3)
    dataset = dataset.map(lambda r: schema.parse_examples(r, 16, 6))
    assert dataset.element_spec["images"].shape.as_list() == [None, 16, 16, 6]
    found = next(dataset.as_numpy_iterator())["images"]
    np.testing.assert_array_equal(found, np.concatenate([stored[:, :16], stored[:, 16:]], -1))


@both
@pytest.mark.parametrize(("height", "num_channels"), [(16, 6), (32, 3)])
def test_a_height_that_fits_not_the_channels_is_an_error(run: Any, height: int, num_channels: int):
    import tensorflow as tf

    image = images.encode(np.zeros((height, 16, 3), np.uint8), "png")
    record = schema.encode_example(SLICE, image, "png", height, 16)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        run(lambda r: schema.parse_example(r, 16, num_channels), record)
    message = (
        f"image/height (x) is not the {48 - height} (y) of image_size 16 and num_channels "
        f"{num_channels}: the examples were built with another image_size or channels"
    )
    assert message in str(error.value)
    assert f"[{height}]" in str(error.value)


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="num_channels is 4: give 3 or 6"):
        schema.parse_example(b"", 16, 4)


@both
@pytest.mark.parametrize("labels", [True, False])
def test_parse_sequence(run: Any, labels: bool):
    sequence = make_sequence(labels)
    parsed = run(lambda r: schema.parse_sequence(r, 4), schema.encode_sequence(sequence))
    assert parsed["image_ids"].tolist() == [b"ID_1", b"ID_2", b"ID_3", b""]
    assert parsed["mask"].tolist() == [True, True, True, False]
    for name in ("embeddings", "logits", "slice_features"):
        np.testing.assert_array_equal(parsed[name], getattr(sequence, name), err_msg=name)
    expected = sequence.labels if labels else np.full((4, NUM_LABELS), -1)
    np.testing.assert_array_equal(parsed["labels"], expected)


def test_batches_have_known_shapes():
    import tensorflow as tf

    records = tf.data.Dataset.from_tensors(schema.encode_sequence(make_sequence()))
    spec = records.map(lambda r: schema.parse_sequence(r, 4)).batch(1).element_spec
    assert spec["logits"].shape.as_list() == [None, 4, NUM_LABELS]
    assert spec["mask"].shape.as_list() == [None, 4]
