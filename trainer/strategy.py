"""Which devices train: all visible GPUs, or the CPU where there is none."""

from collections.abc import Sequence
from typing import Any

from beam_pipelines.errors import require


def make_strategy(devices: Sequence[str] | None = None, xla: bool = False) -> Any:
    """A MirroredStrategy over `devices`; over all GPUs, else one CPU, when None.

    With `xla` TensorFlow's default strategy, for one device: MirroredStrategy's updates cannot be
    compiled.

    Raises:
        UserError: `xla` is asked for with several devices.
    """
    import tensorflow as tf

    if devices is None:
        gpus = tf.config.list_logical_devices("GPU")
        devices = [device.name for device in gpus] or ["CPU:0"]
    if xla:
        require(
            len(devices) == 1,
            f"xla: received true with {len(devices)} devices; it compiles for one: give false, or "
            "show one device with CUDA_VISIBLE_DEVICES",
        )
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(list(devices))


def check_precision(precision: str, num_devices: int) -> None:
    """Checks that the devices can train in a precision together.

    Raises:
        UserError: mixed_float16 on several devices. Keras skips a step in which a gradient
            overflows when the first device finds one, and only then: an overflow on another device
            would leave weights that are no numbers.
    """
    require(
        precision != "mixed_float16" or num_devices == 1,
        f"precision: received mixed_float16 with {num_devices} devices; give mixed_bfloat16, or "
        "show one device with CUDA_VISIBLE_DEVICES",
    )


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Checks that every device gets the same share of a batch.

    Raises:
        UserError: the devices do not divide the batch.
    """
    require(
        batch_size % num_devices == 0,
        f"batch_size: received {batch_size}, which {num_devices} devices do not divide; give a "
        f"multiple of {num_devices}",
    )
