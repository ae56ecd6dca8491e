"""The settings of every stage: one frozen dataclass a section, checked on construction."""

import dataclasses
from dataclasses import dataclass
from functools import partial
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
    channels: str = setting(
        "both",
        "windows (a slice in three windows), neighbours (the slice below, the slice and the slice "
        "above in the first window) or both (six channels: windows, then neighbours)",
        choices=("windows", "neighbours", "both"),
    )
    crop: str = setting(
        "head",
        "head: the square around the head of the whole series, so that stored pixels show more of "
        "it; or none",
        choices=("none", "head"),
    )

    @property
    def channel_windows(self) -> tuple[Window, ...]:
        """The window of each channel of the stored image."""
        neighbours = (self.windows[0],) * 3
        return {
            "windows": self.windows,
            "neighbours": neighbours,
            "both": self.windows + neighbours,
        }[self.channels]

    def __post_init__(self) -> None:
        _check_settings(self)
        require(
            len(self.windows) == 3,
            f"ExamplesConfig.windows: received {len(self.windows)} windows; give three, "
            "one for each channel of the image",
        )


BACKBONES = (
    "inception_resnet",
    "resnet_50",
    "efficientnet_v2_b0",
    "efficientnet_v2_s",
    "convnext_tiny",
    "small_cnn",
)


# What both models are trained by; each section has them among its own.
_lr = partial(setting, 1e-4, "largest learning rate of AdamW", above=0)
_lr_schedule = partial(
    setting,
    "cosine",
    "cosine (falls to zero over the epochs) or constant",
    choices=("cosine", "constant"),
)
_warmup_ratio = partial(
    setting,
    0.05,
    "share of the steps in which the learning rate rises from zero",
    minimum=0,
    below=1,
)
_weight_decay = partial(
    setting,
    0.0,
    "decoupled weight decay of AdamW, of kernels alone; 0 is plain Adam",
    minimum=0,
)
_ema_decay = partial(
    setting,
    0.0,
    "decay a step of the averaged weights that are judged and kept (0.999 is usual); 0: the last "
    "weights",
    minimum=0,
    below=1,
)
_clip_norm = partial(setting, 1.0, "global norm that gradients are clipped to", above=0)
_patience = partial(
    setting,
    0,
    "epochs without a better validation loss after which training stops; 0: never",
    minimum=0,
)
_keep_best = partial(
    setting,
    True,
    "keep the epoch with the best validation loss; otherwise the last one, unless patience is set",
)


@dataclass(frozen=True)
class BaseConfig:
    """The base model: a CNN over slices, and how it is trained."""

    pretrained_model: str = setting(
        "inception_resnet",
        "the backbone: inception_resnet (1536 features a slice), resnet_50 (2048), "
        "efficientnet_v2_b0 (1280), efficientnet_v2_s (1280), convnext_tiny (768), or small_cnn "
        "(128; trains from nothing on two CPU cores, for demos)",
        choices=BACKBONES,
    )
    pretrained_weights: str = setting(
        "imagenet",
        "where the backbone starts: none, imagenet (downloaded by Keras) or a file (.keras, "
        ".weights.h5, or a TF-slim .ckpt of inception_resnet or resnet_50)",
    )
    batch_size: int = setting(32, "slices in a training step, over all devices", minimum=1)
    num_epochs: int = setting(5, "passes over the train split", minimum=1)
    lr: float = _lr()
    loss: str = setting(
        "weighted_loss",
        "weighted_loss (the Kaggle metric's weights) or bin_loss (mean binary cross-entropy)",
        choices=("bin_loss", "weighted_loss"),
    )
    lr_schedule: str = _lr_schedule()
    warmup_ratio: float = _warmup_ratio()
    weight_decay: float = _weight_decay()
    ema_decay: float = _ema_decay()
    clip_norm: float = _clip_norm()
    dropout_rate: float = setting(
        0.2, "share of the embedding that is dropped before the head", minimum=0, below=1
    )
    prior_bias: bool = setting(
        True, "start from the train split's label priors; otherwise from one half"
    )
    augment: bool = setting(True, "flip, shift, rotate and scale training images")
    window_jitter_hu: float = setting(
        0.0,
        "largest random shift of training images in Hounsfield units; windows widen or narrow by "
        "as much as a share of the first window's width",
        minimum=0,
    )
    positive_share: float = setting(
        0.5,
        "share of training slices with a hemorrhage, weighed so that the expected loss stays the "
        "same; 0: as they come; above 0 the train split is read several times an epoch",
        minimum=0,
        below=1,
    )
    tta: str = setting(
        "flip",
        "test-time augmentation: flip (logits and embeddings are means over the image and its "
        "mirror image) or none",
        choices=("none", "flip"),
    )
    patience: int = _patience()
    keep_best: bool = _keep_best()
    folds: int = setting(
        1,
        "1: one model of the whole train split; more: so many models, each trained without a part "
        "of the patients, whose embeddings it makes",
        minimum=1,
    )
    precision: str = setting(
        "float32",
        "float32, or on GPUs mixed_bfloat16 or, on a single one, mixed_float16",
        choices=("float32", "mixed_float16", "mixed_bfloat16"),
    )
    xla: bool = setting(False, "compile the training step with XLA; one device only")
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
    num_layers: int = setting(2, "stacked bidirectional layers", minimum=1)
    cell: str = setting("lstm", "lstm or gru", choices=("lstm", "gru"))
    cell_size: int = setting(256, "units of each LSTM or GRU, each direction", minimum=1)
    use_embeddings: bool = setting(True, "input: the base model's embeddings")
    use_differences: bool = setting(
        True, "input: the embeddings' differences to the slices below and above"
    )
    use_logits: bool = setting(True, "input: the base model's logits")
    use_slice_features: bool = setting(True, "input: gaps to the neighbours and place in the head")
    residual: bool = setting(
        True, "the output corrects the base model's logits; otherwise it replaces them"
    )
    lr: float = _lr()
    lr_schedule: str = _lr_schedule()
    warmup_ratio: float = _warmup_ratio()
    weight_decay: float = _weight_decay()
    ema_decay: float = _ema_decay()
    clip_norm: float = _clip_norm()
    dropout_rate: float = setting(
        0.3,
        "share of activations that is dropped; the old dropout_rate of 0.7 was the share kept, "
        "which is 0.3 here",
        minimum=0,
        below=1,
    )
    loss: str = setting(
        "masked_weighted_loss",
        "masked_weighted_loss (the Kaggle metric's weights, over real slices) or masked_bin_loss "
        "(mean binary cross-entropy)",
        choices=("masked_bin_loss", "masked_weighted_loss"),
    )
    patience: int = _patience()
    keep_best: bool = _keep_best()
    seed: int = setting(0, "seed of weights, order and dropout", minimum=0)

    def __post_init__(self) -> None:
        _check_settings(self)


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    examples: ExamplesConfig = ExamplesConfig()
    base: BaseConfig = BaseConfig()
    sequence: SequenceConfig = SequenceConfig()
