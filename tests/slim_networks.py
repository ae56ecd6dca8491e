"""TF-slim's networks in tf.nn alone, from slim's source: what Keras's models are compared with.

Variables have slim's names, shapes and defaults. Source: github.com/tensorflow/models,
research/slim/nets: inception_resnet_v2.py, resnet_v2.py, resnet_utils.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

Arrays = dict[str, np.ndarray]
IMAGE_SIZES = (224, 299)


@dataclass
class Variables:
    """Named arrays; one that is missing is drawn where `random` is given."""

    arrays: Arrays = field(default_factory=dict)
    random: np.random.Generator | None = None

    def get(self, name: str, shape: tuple[int, ...], x: tf.Tensor | None = None) -> np.ndarray:
        """An array by name; `x` is what a drawn moving mean or variance belongs to."""
        if self.random is not None and name not in self.arrays:
            array = _draw(self.random, name.rsplit("/", 1)[1], shape)
            if name.endswith("/moving_mean"):
                array = tf.reduce_mean(x) + array * tf.math.reduce_std(x)
            elif name.endswith("/moving_variance"):
                array = array * tf.math.reduce_variance(x)
            self.arrays[name] = np.asarray(array, np.float32)
        array = self.arrays[name]
        assert array.shape == shape, name
        return array


def _draw(random: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels that keep the variance after a rectifier; statistics that differ by channel."""
    if kind == "weights":
        scale = np.sqrt(2 / np.prod(shape[:3]))
        return random.standard_normal(shape, np.float32) * np.float32(scale)
    low, high = {
        "gamma": (0.7, 1.3),
        "beta": (-0.3, 0.5),
        "biases": (-0.3, 0.3),
        "moving_mean": (-0.4, 0.4),
        "moving_variance": (0.5, 2.0),
    }[kind]
    return random.uniform(low, high, shape).astype(np.float32)


def _batch_norm(v: Variables, x: tf.Tensor, scope: str, epsilon: float, scale: bool) -> tf.Tensor:
    shape = (x.shape[-1],)
    factor = 1 / np.sqrt(v.get(f"{scope}/moving_variance", shape, x) + np.float32(epsilon))
    if scale:
        factor = factor * v.get(f"{scope}/gamma", shape)
    return (x - v.get(f"{scope}/moving_mean", shape, x)) * factor + v.get(f"{scope}/beta", shape)


def _kernel(v: Variables, x: tf.Tensor, scope: str, size: tuple[int, int], filters: int):
    return v.get(f"{scope}/weights", (*size, x.shape[-1], filters))


# Inception-ResNet v2.


def _size(name: str) -> tuple[int, int]:
    height, width = name.rsplit("_", 1)[1].split("x")
    return int(height), int(width)


def _conv(v: Variables, x, scope: str, filters: int, stride: int = 1, padding: str = "SAME"):
    """A convolution named after its size, batch normalization without gamma, a rectifier."""
    kernel = _kernel(v, x, scope, _size(scope), filters)
    x = tf.nn.conv2d(x, kernel, stride, padding)
    return tf.nn.relu(_batch_norm(v, x, f"{scope}/BatchNorm", 1e-3, scale=False))


def _residual(v: Variables, x, scope: str, branches: list, scale: float, relu: bool = True):
    mixed = tf.concat(branches, 3)
    name = f"{scope}/Conv2d_1x1"
    up = tf.nn.conv2d(mixed, _kernel(v, mixed, name, (1, 1), x.shape[-1]), 1, "SAME")
    x = x + scale * (up + v.get(f"{name}/biases", (x.shape[-1],)))
    return tf.nn.relu(x) if relu else x


def _block35(v: Variables, x, scope: str):
    b0 = _conv(v, x, f"{scope}/Branch_0/Conv2d_1x1", 32)
    b1 = _conv(v, x, f"{scope}/Branch_1/Conv2d_0a_1x1", 32)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_0b_3x3", 32)
    b2 = _conv(v, x, f"{scope}/Branch_2/Conv2d_0a_1x1", 32)
    b2 = _conv(v, b2, f"{scope}/Branch_2/Conv2d_0b_3x3", 48)
    b2 = _conv(v, b2, f"{scope}/Branch_2/Conv2d_0c_3x3", 64)
    return _residual(v, x, scope, [b0, b1, b2], 0.17)


def _block17(v: Variables, x, scope: str):
    b0 = _conv(v, x, f"{scope}/Branch_0/Conv2d_1x1", 192)
    b1 = _conv(v, x, f"{scope}/Branch_1/Conv2d_0a_1x1", 128)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_0b_1x7", 160)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_0c_7x1", 192)
    return _residual(v, x, scope, [b0, b1], 0.10)


def _block8(v: Variables, x, scope: str, scale: float = 0.20, relu: bool = True):
    b0 = _conv(v, x, f"{scope}/Branch_0/Conv2d_1x1", 192)
    b1 = _conv(v, x, f"{scope}/Branch_1/Conv2d_0a_1x1", 192)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_0b_1x3", 224)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_0c_3x1", 256)
    return _residual(v, x, scope, [b0, b1], scale, relu)


def _mixed_5b(v: Variables, x, scope: str):
    b0 = _conv(v, x, f"{scope}/Branch_0/Conv2d_1x1", 96)
    b1 = _conv(v, x, f"{scope}/Branch_1/Conv2d_0a_1x1", 48)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_0b_5x5", 64)
    b2 = _conv(v, x, f"{scope}/Branch_2/Conv2d_0a_1x1", 64)
    b2 = _conv(v, b2, f"{scope}/Branch_2/Conv2d_0b_3x3", 96)
    b2 = _conv(v, b2, f"{scope}/Branch_2/Conv2d_0c_3x3", 96)
    b3 = tf.nn.avg_pool2d(x, 3, 1, "SAME")
    b3 = _conv(v, b3, f"{scope}/Branch_3/Conv2d_0b_1x1", 64)
    return tf.concat([b0, b1, b2, b3], 3)


def _mixed_6a(v: Variables, x, scope: str):
    b0 = _conv(v, x, f"{scope}/Branch_0/Conv2d_1a_3x3", 384, 2, "VALID")
    b1 = _conv(v, x, f"{scope}/Branch_1/Conv2d_0a_1x1", 256)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_0b_3x3", 256)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_1a_3x3", 384, 2, "VALID")
    return tf.concat([b0, b1, tf.nn.max_pool2d(x, 3, 2, "VALID")], 3)


def _mixed_7a(v: Variables, x, scope: str):
    b0 = _conv(v, x, f"{scope}/Branch_0/Conv2d_0a_1x1", 256)
    b0 = _conv(v, b0, f"{scope}/Branch_0/Conv2d_1a_3x3", 384, 2, "VALID")
    b1 = _conv(v, x, f"{scope}/Branch_1/Conv2d_0a_1x1", 256)
    b1 = _conv(v, b1, f"{scope}/Branch_1/Conv2d_1a_3x3", 288, 2, "VALID")
    b2 = _conv(v, x, f"{scope}/Branch_2/Conv2d_0a_1x1", 256)
    b2 = _conv(v, b2, f"{scope}/Branch_2/Conv2d_0b_3x3", 288)
    b2 = _conv(v, b2, f"{scope}/Branch_2/Conv2d_1a_3x3", 320, 2, "VALID")
    return tf.concat([b0, b1, b2, tf.nn.max_pool2d(x, 3, 2, "VALID")], 3)


def inception_resnet_v2(v: Variables, images: np.ndarray) -> np.ndarray:
    """Embeddings, float32 (batch, 1536), of float32 (batch, height, width, 3)."""
    root = "InceptionResnetV2"
    x = _conv(v, tf.constant(images), f"{root}/Conv2d_1a_3x3", 32, 2, "VALID")
    x = _conv(v, x, f"{root}/Conv2d_2a_3x3", 32, 1, "VALID")
    x = _conv(v, x, f"{root}/Conv2d_2b_3x3", 64)
    x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    x = _conv(v, x, f"{root}/Conv2d_3b_1x1", 80, 1, "VALID")
    x = _conv(v, x, f"{root}/Conv2d_4a_3x3", 192, 1, "VALID")
    x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    x = _mixed_5b(v, x, f"{root}/Mixed_5b")
    for number in range(1, 11):
        x = _block35(v, x, f"{root}/Repeat/block35_{number}")
    x = _mixed_6a(v, x, f"{root}/Mixed_6a")
    for number in range(1, 21):
        x = _block17(v, x, f"{root}/Repeat_1/block17_{number}")
    x = _mixed_7a(v, x, f"{root}/Mixed_7a")
    for number in range(1, 10):
        x = _block8(v, x, f"{root}/Repeat_2/block8_{number}")
    x = _block8(v, x, f"{root}/Block8", scale=1.0, relu=False)
    x = _conv(v, x, f"{root}/Conv2d_7b_1x1", 1536)
    return tf.reduce_mean(x, [1, 2]).numpy()


# ResNet-50 v2.


def _conv_same(v: Variables, x, scope: str, size: int, filters: int, stride: int):
    """slim's conv2d_same: with a stride, padding does not depend on the image's size."""
    kernel = _kernel(v, x, scope, (size, size), filters)
    if stride == 1:
        return tf.nn.conv2d(x, kernel, 1, "SAME")
    before = (size - 1) // 2
    pads = [before, size - 1 - before]
    return tf.nn.conv2d(tf.pad(x, [[0, 0], pads, pads, [0, 0]]), kernel, stride, "VALID")


def _norm_relu(v: Variables, x, scope: str):
    return tf.nn.relu(_batch_norm(v, x, scope, 1e-5, scale=True))


def _bottleneck(v: Variables, x, scope: str, depth: int, stride: int):
    preact = _norm_relu(v, x, f"{scope}/preact")
    if x.shape[-1] == 4 * depth:
        shortcut = x if stride == 1 else tf.nn.max_pool2d(x, 1, stride, "SAME")
    else:
        kernel = _kernel(v, preact, f"{scope}/shortcut", (1, 1), 4 * depth)
        shortcut = tf.nn.conv2d(preact, kernel, stride, "SAME")
        shortcut += v.get(f"{scope}/shortcut/biases", (4 * depth,))
    y = tf.nn.conv2d(preact, _kernel(v, preact, f"{scope}/conv1", (1, 1), depth), 1, "SAME")
    y = _norm_relu(v, y, f"{scope}/conv1/BatchNorm")
    y = _conv_same(v, y, f"{scope}/conv2", 3, depth, stride)
    y = _norm_relu(v, y, f"{scope}/conv2/BatchNorm")
    y = tf.nn.conv2d(y, _kernel(v, y, f"{scope}/conv3", (1, 1), 4 * depth), 1, "SAME")
    return shortcut + y + v.get(f"{scope}/conv3/biases", (4 * depth,))


def resnet_v2_50(v: Variables, images: np.ndarray) -> np.ndarray:
    """Embeddings, float32 (batch, 2048), of float32 (batch, height, width, 3)."""
    root = "resnet_v2_50"
    x = _conv_same(v, tf.constant(images), f"{root}/conv1", 7, 64, 2)
    x = tf.nn.max_pool2d(x + v.get(f"{root}/conv1/biases", (64,)), 3, 2, "SAME")
    # The last unit of a block has its stride.
    for block, depth, units, stride in (
        (1, 64, 3, 2),
        (2, 128, 4, 2),
        (3, 256, 6, 2),
        (4, 512, 3, 1),
    ):
        for unit in range(1, units + 1):
            scope = f"{root}/block{block}/unit_{unit}/bottleneck_v2"
            x = _bottleneck(v, x, scope, depth, stride if unit == units else 1)
    x = _norm_relu(v, x, f"{root}/postnorm")
    return tf.reduce_mean(x, [1, 2]).numpy()


NETWORKS: dict[str, Callable[[Variables, np.ndarray], np.ndarray]] = {
    "inception_resnet_v2": inception_resnet_v2,
    "resnet_v2_50": resnet_v2_50,
}


def images_of(size: int) -> np.ndarray:
    """One image in [-1, 1], float32 (1, size, size, 3): coarse patches under fine noise."""
    random = np.random.default_rng(size)
    patches = random.uniform(-0.7, 0.7, (1, -(-size // 16), -(-size // 16), 3))
    coarse = np.kron(patches, np.ones((1, 16, 16, 1)))[:, :size, :size]
    return (coarse + random.uniform(-0.3, 0.3, coarse.shape)).astype(np.float32)


def draw(architecture: str) -> Arrays:
    """All variables of an architecture, by slim's names."""
    variables = Variables(random=np.random.default_rng(7))
    NETWORKS[architecture](variables, images_of(75))
    return variables.arrays


def embeddings(architecture: str, arrays: Arrays, images: np.ndarray) -> np.ndarray:
    return NETWORKS[architecture](Variables(arrays), images)


def write_checkpoint(path: Path, arrays: Arrays) -> None:
    """Writes a checkpoint of version 1, one file as slim's are.

    The operation writes what tf.train.Saver writes (see test_pretrained.py); with 900 variables
    the Saver takes 20 seconds.
    """
    names, data = list(arrays), list(arrays.values())
    tf.raw_ops.Save(filename=str(path), tensor_names=names, data=data)
