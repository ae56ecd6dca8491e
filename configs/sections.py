"""The settings of every stage: one frozen dataclass a section, checked on construction."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from beam_pipelines.errors import UserError, require


def setting(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declares one setting: its default, help text and what values it takes."""
    metadata = {
        "help": text,
        "choices": choices,
        "minimum": minimum,
        "above": above,
        "below": below,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _check_settings(section: Any) -> None:
    """Checks every setting of a dataclass against its declaration.

    Raises:
        UserError: names the setting, what it takes and the value received.
    """
    for field in dataclasses.fields(section):
        value, bounds = getattr(section, field.name), field.metadata
        name = f"{type(section).__name__}.{field.name}"
        choices = bounds.get("choices")
        if choices and value not in choices:
            raise UserError(f"{name}: received {value!r}; give one of {', '.join(choices)}")
        for key, holds, words in (
            ("minimum", lambda v, b: v >= b, "at least"),
            ("above", lambda v, b: v > b, "above"),
            ("below", lambda v, b: v < b, "below"),
        ):
            bound = bounds.get(key)
            if bound is not None and not holds(value, bound):
                raise UserError(f"{name}: received {value!r}; give a number {words} {bound}")


@dataclass(frozen=True)
class Window:
    """A CT display window in Hounsfield units: level - width/2 is black, level + width/2 white."""

    level: float
    width: float

    def __post_init__(self) -> None:
        require(self.width > 0, f"Window.width: received {self.width!r}; give a number above 0")


DEFAULT_WINDOWS = (Window(40.0, 80.0), Window(80.0, 200.0), Window(600.0, 2800.0))


@dataclass(frozen=True)
class ExamplesConfig:
    """How slices become images and which split a patient is in."""

    image_size: int = setting(256, "height and width of the stored image, in pixels", minimum=16)
    windows: tuple[Window, ...] = setting(
        DEFAULT_WINDOWS, "the image's channels: brain, subdural and bone window by default"
    )
    image_format: str = setting(
        "jpeg",
        "jpeg (4:4:4: the channels are windows, not colours) or png (lossless, twice the size)",
        choices=("jpeg", "png"),
    )
    jpeg_quality: int = setting(95, "quality of the stored JPEG, 1 to 100", minimum=1, below=101)
    val_ratio: float = setting(
        0.1, "share of the train patients held out for validation", minimum=0, below=1
    )
    split_salt: str = setting("split-1", "another text gives another split of the patients")
    slices_per_shard: int = setting(2048, "aimed-at number of slices in a shard", minimum=1)

    def __post_init__(self) -> None:
        _check_settings(self)
        require(
            len(self.windows) == 3,
            f"ExamplesConfig.windows: received {len(self.windows)} windows; give three, "
            "one for each channel of the image",
        )


@dataclass(frozen=True)
class BaseConfig:
    """The base model: a CNN over slices, and how it is trained."""

    pretrained_model: str = setting(
        "inception_resnet",
        "the backbone: inception_resnet (1536 features a slice), resnet_50 (2048), or small_cnn "
        "(128; trains from nothing on two CPU cores, for demos)",
        choices=("inception_resnet", "resnet_50", "small_cnn"),
    )
    pretrained_weights: str = setting(
        "imagenet",
        "where the backbone starts: none, imagenet (downloaded by Keras) or a file "
        "(.keras or .weights.h5)",
    )
    batch_size: int = setting(32, "slices in a training step, over all devices", minimum=1)
    num_epochs: int = setting(5, "passes over the train split", minimum=1)
    lr: float = setting(1e-4, "learning rate of Adam", above=0)
    loss: str = setting(
        "bin_loss",
        "bin_loss (mean binary cross-entropy) or weighted_loss (the Kaggle metric's weights)",
        choices=("bin_loss", "weighted_loss"),
    )
    lr_schedule: str = setting(
        "cosine",
        "cosine (falls to zero over the epochs) or constant",
        choices=("cosine", "constant"),
    )
    clip_norm: float = setting(1.0, "global norm that gradients are clipped to", above=0)
    dropout_rate: float = setting(
        0.2, "share of the embedding that is dropped before the head", minimum=0, below=1
    )
    augment: bool = setting(True, "flip, shift, rotate and scale training images")
    shuffle_buffer: int = setting(4096, "encoded slices held in memory to shuffle from", minimum=1)
    seed: int = setting(0, "seed of weights, order and augmentation", minimum=0)

    def __post_init__(self) -> None:
        _check_settings(self)


@dataclass(frozen=True)
class SequenceConfig:
    """The sequence model: a recurrent network over a series' slices, and how it is trained."""

    max_to_keep: int = setting(
        60, "slices in a sequence; a longer series is cut into overlapping windows", minimum=2
    )
    batch_size: int = setting(32, "sequences in a training step, over all devices", minimum=1)
    num_epochs: int = setting(10, "passes over the train sequences", minimum=1)
    num_layers: int = setting(2, "stacked bidirectional LSTM layers", minimum=1)
    cell_size: int = setting(256, "units of each LSTM, each direction", minimum=1)
    lr: float = setting(1e-4, "learning rate of Adam", above=0)
    lr_schedule: str = setting(
        "cosine",
        "cosine (falls to zero over the epochs) or constant",
        choices=("cosine", "constant"),
    )
    clip_norm: float = setting(1.0, "global norm that gradients are clipped to", above=0)
    dropout_rate: float = setting(
        0.3,
        "share of activations that is dropped; the old dropout_rate of 0.7 was the share kept, "
        "which is 0.3 here",
        minimum=0,
        below=1,
    )
    loss: str = setting(
        "masked_bin_loss",
        "masked_bin_loss (mean binary cross-entropy over real slices) or masked_weighted_loss "
        "(the Kaggle metric's weights)",
        choices=("masked_bin_loss", "masked_weighted_loss"),
    )
    seed: int = setting(0, "seed of weights, order and dropout", minimum=0)

    def __post_init__(self) -> None:
        _check_settings(self)


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    examples: ExamplesConfig = ExamplesConfig()
    base: BaseConfig = BaseConfig()
    sequence: SequenceConfig = SequenceConfig()
