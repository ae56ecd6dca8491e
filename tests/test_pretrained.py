"""TF-slim's checkpoints: the same embeddings, and what is refused."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import slim_networks
import tensorflow as tf

from beam_pipelines import storage
from beam_pipelines.errors import UserError
from trainer import model_files, pretrained

ARCHITECTURES = list(slim_networks.NETWORKS)


@dataclass
class Checkpoint:
    path: Path
    arrays: slim_networks.Arrays
    models: dict[int, Any] = field(default_factory=dict)

    def model(self, size: int) -> Any:
        if size not in self.models:
            architecture = self.path.stem
            model = pretrained.from_slim_checkpoint(str(self.path), architecture, size)
            self.models[size] = model
        return self.models[size]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Checkpoint]]:
    folder = tmp_path_factory.mktemp("slim")
    found = {}
    for name in ARCHITECTURES:
        found[name] = Checkpoint(folder / f"{name}.ckpt", slim_networks.draw(name))
        slim_networks.write_checkpoint(
            found[name].path, found[name].arrays | _extras(found[name].arrays)
        )
    yield found
    for checkpoint in found.values():
        checkpoint.path.unlink()  # 400 MB that pytest would keep.


def _extras(arrays: slim_networks.Arrays) -> slim_networks.Arrays:
    """Slots of the optimizer and the classifier, which a model does not take."""
    root = next(iter(arrays)).split("/")[0]
    slots = {
        f"{name}/{slot}": np.full_like(array, 9)
        for name, array in arrays.items()
        for slot in ("Momentum", "ExponentialMovingAverage")
        if array.size < 100_000
    }
    others = {
        "global_step": np.int64(7),
        f"{root}/logits/weights": np.zeros((1, 1, 2048, 1001), np.float32),
        f"{root}/AuxLogits/Conv2d_1b_1x1/weights": np.zeros((1, 1, 1088, 128), np.float32),
    }
    return slots | others


def _difference(received: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the mean embedding, which is above zero."""
    return float(np.abs(received - expected).max() / expected.mean())


@pytest.mark.parametrize("size", slim_networks.IMAGE_SIZES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_are_slims(
    checkpoints: dict[str, Checkpoint], architecture: str, size: int
) -> None:
    checkpoint, images = checkpoints[architecture], slim_networks.images_of(size)
    model = checkpoint.model(size)
    received = model(images, training=False).numpy()
    expected = slim_networks.embeddings(architecture, checkpoint.arrays, images)
    assert received.shape == expected.shape
    assert (received.dtype, model.name) == (np.float32, "backbone")
    assert len(model.weights) == len(checkpoint.arrays)
    assert 0.1 < expected.std() < 10 and np.mean(expected == 0) < 0.5
    difference = _difference(received, expected)
    assert difference < 1e-4


@pytest.mark.parametrize("size", slim_networks.IMAGE_SIZES)
def test_keras_own_resnet_is_not_slims(checkpoints: dict[str, Checkpoint], size: int) -> None:
    checkpoint, images = checkpoints["resnet_v2_50"], slim_networks.images_of(size)
    unchanged = keras.applications.ResNet50V2(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )
    unchanged.set_weights(checkpoint.model(size).get_weights())
    expected = slim_networks.embeddings("resnet_v2_50", checkpoint.arrays, images)
    difference = _difference(unchanged(images, training=False).numpy(), expected)
    assert difference > 0.05


@pytest.mark.parametrize(
    ("architecture", "one", "other"),
    [
        (
            "inception_resnet_v2",
            "Mixed_7a/Branch_0/Conv2d_0a_1x1/weights",
            "Mixed_7a/Branch_1/Conv2d_0a_1x1/weights",
        ),
        (
            "inception_resnet_v2",
            "Repeat_1/block17_1/Branch_1/Conv2d_0c_7x1/BatchNorm/beta",
            "Repeat_1/block17_1/Branch_0/Conv2d_1x1/BatchNorm/beta",
        ),
        (
            "resnet_v2_50",
            "block3/unit_5/bottleneck_v2/conv2/weights",
            "block3/unit_6/bottleneck_v2/conv2/weights",
        ),
    ],
)
def test_the_comparison_sees_swapped_variables(
    checkpoints: dict[str, Checkpoint], architecture: str, one: str, other: str
) -> None:
    arrays, images = checkpoints[architecture].arrays, slim_networks.images_of(75)
    root = next(iter(arrays)).split("/")[0]
    one, other = f"{root}/{one}", f"{root}/{other}"
    swapped = arrays | {one: arrays[other], other: arrays[one]}
    received = slim_networks.embeddings(architecture, swapped, images)
    assert _difference(received, slim_networks.embeddings(architecture, arrays, images)) > 1e-2


def test_a_model_with_slims_pool_is_saved_and_read(
    checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    model, images = checkpoints["resnet_v2_50"].model(64), slim_networks.images_of(64)
    path = str(tmp_path / "model.keras")
    model_files.save_model(model, path)
    again = model_files.load_model(path)
    assert pretrained.has_slim_pool(again)
    assert np.allclose(again(images, training=False), model(images, training=False), atol=1e-6)


def test_the_pool_is_slims_with_even_and_odd_sizes() -> None:
    own = keras.applications.ResNet50V2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    changed = pretrained.with_slim_pool(own)
    assert pretrained.has_slim_pool(changed) and not pretrained.has_slim_pool(own)
    for size in (7, 8):
        # Below zero, so that a pad of zeros is seen.
        images = -1 - np.random.default_rng(size).random((1, size, size, 2), np.float32)
        expected = tf.nn.max_pool2d(images, 3, 2, "SAME")
        pooled = [
            model.get_layer("pool1_pool")(model.get_layer("pool1_pad")(images))
            for model in (changed, own)
        ]
        assert np.array_equal(pooled[0], expected)
        assert not np.array_equal(pooled[1], expected)


def _refused(path: Path | str, architecture: str = "resnet_v2_50") -> str:
    with pytest.raises(UserError) as error:
        pretrained.from_slim_checkpoint(str(path), architecture, 32)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_missing_variable_is_named_and_a_slot_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "slim.ckpt"
    weights = np.zeros((7, 7, 3, 64), np.float32)
    arrays = {f"{name}/conv1/weights": weights for name in ("x/resnet_v2_50", "resnet_v2_501")}
    arrays["resnet_v2_50/conv1/weights/Momentum"] = weights
    slim_networks.write_checkpoint(path, arrays)
    assert (
        "variable resnet_v2_50/conv1/weights: received none, expected shape (7, 7, 3, 64); give"
        in _refused(path)
    )


def test_another_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "slim.ckpt"
    arrays = {
        "resnet_v2_50/conv1/weights": np.zeros((7, 7, 3, 64), np.float32),
        "resnet_v2_50/conv1/biases": np.zeros((1, 64), np.float32),
    }
    slim_networks.write_checkpoint(path, arrays)
    assert (
        "variable resnet_v2_50/conv1/biases: received shape (1, 64), expected shape (64,); give"
        in _refused(path)
    )


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slim.ckpt"
    assert "no such file" in _refused(path)
    path.mkdir()
    assert "received a folder; give the .ckpt file" in _refused(path)
    path.rmdir()
    slim_networks.write_checkpoint(path, {"a": np.zeros((50, 50), np.float32)})
    whole = path.read_bytes()
    for broken in (b"", b"no checkpoint", b"no checkpoint" * 100, whole[: len(whole) // 2]):
        path.write_bytes(broken)
        assert "not a TF-slim checkpoint of resnet_v2_50 in one file: " in _refused(path)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    message = _refused(tmp_path / "slim.ckpt", "resnet_v1_50")
    assert "resnet_v1_50; give one of inception_resnet_v2, resnet_v2_50" in message


def test_a_checkpoint_in_a_bucket_is_read(tmp_path: Path) -> None:
    path, in_bucket = tmp_path / "slim.ckpt", "memory://bucket/slim.ckpt"
    slim_networks.write_checkpoint(path, {"a": np.zeros(1, np.float32)})
    with storage.open_atomic(in_bucket) as file:
        file.write(path.read_bytes())
    assert "variable resnet_v2_50/conv1/weights: received none" in _refused(in_bucket)
    storage.remove(in_bucket)


def test_checkpoints_of_the_tests_are_those_of_tensorflows_saver(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "a/weights": random.standard_normal((40, 50)).astype(np.float32),
        "global_step": np.int64(5),
    }
    slim_networks.write_checkpoint(tmp_path / "written.ckpt", arrays)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=array)
            for name, array in arrays.items()
        }
        session.run(tf.compat.v1.global_variables_initializer())
        version = tf.compat.v1.train.SaverDef.V1
        saver = tf.compat.v1.train.Saver(variables, write_version=version)
        path = str(tmp_path / "saved.ckpt")
        saver.save(session, path, write_meta_graph=False, write_state=False)
    assert (tmp_path / "written.ckpt").read_bytes() == (tmp_path / "saved.ckpt").read_bytes()
