"""The one schema of every file that a pipeline writes and a model reads.

Three kinds of record, each a serialized `tensorflow.Example`:

- an *example* is a slice with its encoded image,
- an *embedding* is a slice with what the base model made of it,
- a *sequence* is up to `max_to_keep` slices of one series in anatomical order, padded:
  `mask` is 1, 1, 1, 0, 0 for three slices in a sequence of five.

The encoders need no TensorFlow; the `parse_*` functions import it when they are called.
Arrays are stored as their little-endian bytes: a FloatList of 60 x 1536 numbers takes 30 times as
long to parse as one bytes value.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from beam_pipelines import example_proto

SUBTYPES = (
    "epidural",
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
    "any",
)
NUM_LABELS = len(SUBTYPES)
# Part of every shard's fingerprint: raise it when a record's meaning changes.
FORMAT_VERSION = 2

IMAGE_ID = "image/id"
PATIENT_ID = "patient/id"
STUDY_INSTANCE_UID = "study/instance_uid"
SERIES_INSTANCE_UID = "series/instance_uid"
INDEX = "slice/index"
NUM_SLICES = "series/num_slices"
POSITION = "slice/position_mm"
GAP_BELOW = "slice/gap_below_mm"
GAP_ABOVE = "slice/gap_above_mm"
PIXEL_SPACING = "slice/pixel_spacing_mm"
LABEL = "label"
IMAGE_ENCODED = "image/encoded"
IMAGE_FORMAT = "image/format"
IMAGE_HEIGHT = "image/height"
IMAGE_WIDTH = "image/width"
EMBEDDING = "embedding"
LOGITS = "logits"
WINDOW_START = "sequence/start"
EMBEDDINGS = "sequence/embeddings"
SEQUENCE_LOGITS = "sequence/logits"
SLICE_FEATURES = "sequence/slice_features"
LABELS = "sequence/labels"
MASK = "sequence/mask"
IMAGE_IDS = "sequence/image_ids"


@dataclass(frozen=True)
class Slice:
    """What every record of a slice says of it.

    Attributes:
        image_id: SOPInstanceUID; unique in a data set.
        patient_id: PatientID.
        study_instance_uid: StudyInstanceUID.
        series_instance_uid: SeriesInstanceUID.
        index: position in the series, 0 at the feet.
        num_slices: slices in the series.
        position_mm: distance along the slice normal, growing from feet to head.
        gap_below_mm: distance to the slice before; 0 for the first.
        gap_above_mm: distance to the slice after; 0 for the last.
        pixel_spacing_mm: mean of PixelSpacing's two numbers; 0 where it is absent.
        label: 0 or 1 for each of SUBTYPES, or None where the slice has no labels.
    """

    image_id: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    index: int
    num_slices: int
    position_mm: float
    gap_below_mm: float
    gap_above_mm: float
    pixel_spacing_mm: float
    label: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Sequence:
    """A padded window of a series.

    Attributes:
        patient_id: PatientID.
        study_instance_uid: StudyInstanceUID.
        series_instance_uid: SeriesInstanceUID.
        start: index in the series of the window's first slice.
        num_slices: slices in the whole series.
        image_ids: `max_to_keep` ids, "" where padded.
        embeddings: float32 of shape (max_to_keep, embedding_dim).
        logits: float32 of shape (max_to_keep, 6), of the base model.
        slice_features: float32 of shape (max_to_keep, num_slice_features).
        labels: float32 of shape (max_to_keep, 6), -1 for a slice without labels, 0 where padded;
            None where the whole series has none.
        mask: uint8 of shape (max_to_keep,), 1 where a slice is real.
    """

    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    start: int
    num_slices: int
    image_ids: tuple[str, ...]
    embeddings: np.ndarray
    logits: np.ndarray
    slice_features: np.ndarray
    labels: np.ndarray | None
    mask: np.ndarray


def _slice_features(item: Slice) -> dict[str, example_proto.Value]:
    features: dict[str, example_proto.Value] = {
        IMAGE_ID: item.image_id,
        PATIENT_ID: item.patient_id,
        STUDY_INSTANCE_UID: item.study_instance_uid,
        SERIES_INSTANCE_UID: item.series_instance_uid,
        INDEX: item.index,
        NUM_SLICES: item.num_slices,
        POSITION: float(item.position_mm),
        GAP_BELOW: float(item.gap_below_mm),
        GAP_ABOVE: float(item.gap_above_mm),
        PIXEL_SPACING: float(item.pixel_spacing_mm),
    }
    if item.label is not None:
        features[LABEL] = [int(v) for v in item.label]
    return features


def encode_example(item: Slice, image: bytes, image_format: str, height: int, width: int) -> bytes:
    """Serializes a slice with its encoded image of `height` x `width` pixels and three channels.

    Six channels are two images, one above the other: `height` is twice `width`.
    """
    return example_proto.encode(
        {
            **_slice_features(item),
            IMAGE_ENCODED: image,
            IMAGE_FORMAT: image_format,
            IMAGE_HEIGHT: height,
            IMAGE_WIDTH: width,
        }
    )


def encode_embedding(item: Slice, embedding: np.ndarray, logits: np.ndarray) -> bytes:
    """Serializes a slice with its embedding, float32 (embedding_dim,), and logits, float32 (6,)."""
    return example_proto.encode(
        {
            **_slice_features(item),
            EMBEDDING: _to_bytes(embedding, "<f4"),
            LOGITS: _to_bytes(logits, "<f4"),
        }
    )


def encode_sequence(item: Sequence) -> bytes:
    """Serializes a padded window of a series."""
    features: dict[str, example_proto.Value] = {
        PATIENT_ID: item.patient_id,
        STUDY_INSTANCE_UID: item.study_instance_uid,
        SERIES_INSTANCE_UID: item.series_instance_uid,
        WINDOW_START: item.start,
        NUM_SLICES: item.num_slices,
        IMAGE_IDS: list(item.image_ids),
        EMBEDDINGS: _to_bytes(item.embeddings, "<f4"),
        SEQUENCE_LOGITS: _to_bytes(item.logits, "<f4"),
        SLICE_FEATURES: _to_bytes(item.slice_features, "<f4"),
        MASK: _to_bytes(item.mask, "u1"),
    }
    if item.labels is not None:
        features[LABELS] = _to_bytes(item.labels, "<f4")
    return example_proto.encode(features)


def _to_bytes(array: np.ndarray, dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def decode_slice(data: bytes) -> tuple[Slice, dict[str, list[Any]]]:
    """The slice of a serialized example or embedding, and all its features by key."""
    features = example_proto.decode(data)
    text = {
        name: features[key][0].decode()
        for name, key in (
            ("image_id", IMAGE_ID),
            ("patient_id", PATIENT_ID),
            ("study_instance_uid", STUDY_INSTANCE_UID),
            ("series_instance_uid", SERIES_INSTANCE_UID),
        )
    }
    label = features.get(LABEL)
    item = Slice(
        **text,
        index=features[INDEX][0],
        num_slices=features[NUM_SLICES][0],
        position_mm=features[POSITION][0],
        gap_below_mm=features[GAP_BELOW][0],
        gap_above_mm=features[GAP_ABOVE][0],
        pixel_spacing_mm=features[PIXEL_SPACING][0],
        label=tuple(label) if label else None,
    )
    return item, features


def decode_embedding(data: bytes) -> tuple[Slice, np.ndarray, np.ndarray]:
    """A slice, its embedding, float32 (embedding_dim,), and its logits, float32 (6,)."""
    item, features = decode_slice(data)
    embedding = np.frombuffer(features[EMBEDDING][0], "<f4")
    return item, embedding, np.frombuffer(features[LOGITS][0], "<f4")


def decode_sequence(data: bytes) -> Sequence:
    """A padded window of a series."""
    features = example_proto.decode(data)
    mask = np.frombuffer(features[MASK][0], "u1")

    def rows(key: str) -> np.ndarray:
        return np.frombuffer(features[key][0], "<f4").reshape(len(mask), -1)

    return Sequence(
        patient_id=features[PATIENT_ID][0].decode(),
        study_instance_uid=features[STUDY_INSTANCE_UID][0].decode(),
        series_instance_uid=features[SERIES_INSTANCE_UID][0].decode(),
        start=features[WINDOW_START][0],
        num_slices=features[NUM_SLICES][0],
        image_ids=tuple(v.decode() for v in features[IMAGE_IDS]),
        embeddings=rows(EMBEDDINGS),
        logits=rows(SEQUENCE_LOGITS),
        slice_features=rows(SLICE_FEATURES),
        labels=rows(LABELS) if LABELS in features else None,
        mask=mask,
    )


def parse_example(serialized: Any, image_size: int, num_channels: int = 3) -> dict[str, Any]:
    """Parses one example inside tf.data.

    Args:
        serialized: string tensor of shape ().
        image_size: height and width of the images.
        num_channels: 3 or 6, see `parse_examples`.

    Returns:
        `image_id` string (), `image` uint8 (image_size, image_size, num_channels) and `label`
        float32 (6,), which is -1 where the slice has no labels.
    """
    import tensorflow as tf

    batch = parse_examples(tf.expand_dims(serialized, 0), image_size, num_channels)
    return {
        "image_id": batch["image_ids"][0],
        "image": batch["images"][0],
        "label": batch["labels"][0],
    }


def parse_examples(serialized: Any, image_size: int, num_channels: int = 3) -> dict[str, Any]:
    """Parses a batch of examples inside tf.data; 96 px take 99 microseconds each, singly 136.

    Args:
        serialized: string tensor of shape (batch,).
        image_size: height and width of the images.
        num_channels: 3, or 6 for images that were stored as two, one above the other.

    Returns:
        `image_ids` string (batch,), `images` uint8 (batch, image_size, image_size, num_channels)
        and `labels` float32 (batch, 6), which is -1 where a slice has no labels.

    Raises:
        ValueError: another number of channels.
        tf.errors.InvalidArgumentError: an image was stored with another height or width.
    """
    import tensorflow as tf

    if num_channels not in (3, 6):
        raise ValueError(f"num_channels is {num_channels}: give 3 or 6")
    num_parts = num_channels // 3
    height = num_parts * image_size
    spec = {
        IMAGE_ID: tf.io.FixedLenFeature([], tf.string),
        IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string),
        IMAGE_HEIGHT: tf.io.FixedLenFeature([], tf.int64),
        LABEL: tf.io.FixedLenFeature([NUM_LABELS], tf.int64, [-1] * NUM_LABELS),
    }
    features = tf.io.parse_example(serialized, spec)
    fits = tf.debugging.assert_equal(
        features[IMAGE_HEIGHT],
        tf.constant(height, tf.int64),
        f"{IMAGE_HEIGHT} (x) is not the {height} (y) of image_size {image_size} and num_channels "
        f"{num_channels}: the examples were built with another image_size or channels",
    )
    with tf.control_dependencies([fits]):
        encoded_images = tf.identity(features[IMAGE_ENCODED])
    shape = (height, image_size, 3)
    images = tf.map_fn(
        lambda encoded: tf.ensure_shape(_decode_image(encoded), shape),
        encoded_images,
        fn_output_signature=tf.TensorSpec(shape, tf.uint8),
    )
    if num_parts > 1:
        parts = tf.reshape(images, (-1, num_parts, image_size, image_size, 3))
        images = tf.concat(tf.unstack(parts, axis=1), axis=-1)
    return {
        "image_ids": features[IMAGE_ID],
        "images": images,
        "labels": tf.cast(features[LABEL], tf.float32),
    }


def _decode_image(encoded: Any) -> Any:
    """A JPEG or PNG of three channels as uint8 (height, width, 3), for training and embedding.

    TensorFlow's default, which `decode_image` cannot change, is libjpeg's rough transform: no
    faster (0.36 ms at 256 px either way), but at quality 95 it costs brain / subdural / bone window
    0.9 / 1.7 / 1.2 dB.
    """
    import tensorflow as tf

    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(encoded, channels=3),
    )


def parse_sequence(serialized: Any, max_to_keep: int) -> dict[str, Any]:
    """Parses one sequence inside tf.data.

    Args:
        serialized: string tensor of shape ().
        max_to_keep: slices in a sequence.

    Returns:
        `image_ids` string (max_to_keep,), `embeddings` float32 (max_to_keep, embedding_dim),
        `logits` float32 (max_to_keep, 6), `slice_features` float32 (max_to_keep,
        num_slice_features), `labels` float32 (max_to_keep, 6), which is -1 where the series has no
        labels, and `mask` bool (max_to_keep,).
    """
    import tensorflow as tf

    no_labels = _to_bytes(np.full((max_to_keep, NUM_LABELS), -1.0), "<f4")
    spec = {
        IMAGE_IDS: tf.io.FixedLenFeature([max_to_keep], tf.string),
        EMBEDDINGS: tf.io.FixedLenFeature([], tf.string),
        SEQUENCE_LOGITS: tf.io.FixedLenFeature([], tf.string),
        SLICE_FEATURES: tf.io.FixedLenFeature([], tf.string),
        LABELS: tf.io.FixedLenFeature([], tf.string, no_labels),
        MASK: tf.io.FixedLenFeature([], tf.string),
    }
    features = tf.io.parse_single_example(serialized, spec)

    def rows(key: str, columns: int = -1) -> Any:
        flat = tf.io.decode_raw(features[key], tf.float32)
        return tf.reshape(flat, [max_to_keep, columns])

    mask = tf.io.decode_raw(features[MASK], tf.uint8)
    return {
        "image_ids": features[IMAGE_IDS],
        "embeddings": rows(EMBEDDINGS),
        "logits": rows(SEQUENCE_LOGITS, NUM_LABELS),
        "slice_features": rows(SLICE_FEATURES),
        "labels": rows(LABELS, NUM_LABELS),
        "mask": tf.ensure_shape(tf.cast(mask, tf.bool), [max_to_keep]),
    }
