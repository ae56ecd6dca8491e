"""What the quality comparison compares: rows of settings, each against a reference row.

A row is a set of settings that differ from the plain row's, which has all that can be left out left
out: it does not change when a default does. A row is trained once a seed on that seed's train set
and judged on that seed's judge set.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from beam_pipelines import shards
from beam_pipelines.errors import require
from configs import BaseConfig, Config, ExamplesConfig, SequenceConfig
from configs.loader import to_mapping

# What a row is judged by, in the order of the report's tables.
BASE, SEQUENCE, COMBINED, FOLDS, CALIBRATION = STAGES = (
    "base",
    "sequence",
    "combined",
    "folds",
    "calibration",
)
# How a row comes about.
PRIOR, TRAIN_BASE, RESCORE_BASE, TRAIN_SEQUENCE, SCALE = (
    "the train split's label shares, no model",
    "trains a base model",
    "scores another row's base model",
    "trains a sequence model",
    "scales another row's logits",
)
PLAIN, PLAIN_SEQUENCE, FOLDS_BASE = "plain", "seq_plain", "folds_base"
# All of the product's own defaults.
SHIPPED, SHIPPED_SEQUENCE = "shipped", "shipped_seq"


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        name: letters, digits and underscores.
        stage: the report's table that it is in.
        how: PRIOR, TRAIN_BASE, RESCORE_BASE, TRAIN_SEQUENCE or SCALE.
        changes: `section.setting` and its value, where it differs from the plain row.
        reference: the row that its loss is divided by; None for the first.
        made_from: the row whose model or logits it uses.
        decides: what a row without changes is about.
    """

    name: str
    stage: str
    how: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = PLAIN
    made_from: str | None = None
    decides: str = ""

    @property
    def what(self) -> str:
        """What is different about it."""
        plain = plain_config(FULL, 1)
        changes = [
            f"{name} {shown(value)}"
            for name, value in self.changes.items()
            if value != _setting(plain, name)
        ]
        return ", ".join(changes) or self.decides or self.how

    @property
    def needs(self) -> tuple[str, ...]:
        """Rows that must be there before it."""
        return tuple(name for name in (self.reference, self.made_from) if name is not None)


def _setting(config: Config, name: str) -> Any:
    section, setting = name.split(".")
    return getattr(getattr(config, section), setting)


def shown(value: Any) -> str:
    """A setting's value as YAML spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _base(name: str, **settings: Any) -> Row:
    return Row(name, BASE, TRAIN_BASE, {f"base.{k}": v for k, v in settings.items()})


def _examples(name: str, **settings: Any) -> Row:
    return Row(name, BASE, TRAIN_BASE, {f"examples.{k}": v for k, v in settings.items()})


def _sequence(name: str, **settings: Any) -> Row:
    changes = {f"sequence.{k}": v for k, v in settings.items()}
    return Row(name, SEQUENCE, TRAIN_SEQUENCE, changes, PLAIN_SEQUENCE, PLAIN)


# What helped alone, to be tried together.
_BOTH, _CROP = {"examples.channels": "both"}, {"examples.crop": "head"}
_SHARE = {"base.positive_share": 0.5}
_ALL = _BOTH | _CROP | _SHARE
_THREE_FOLDS = {"base.folds": 3}


def _shipped(section: str, defaults: Any, *names: str) -> dict[str, Any]:
    """The product's own defaults of settings that rows are about."""
    return {f"{section}.{name}": getattr(defaults, name) for name in names}


_SHIPPED_BASE = {
    **_shipped("examples", ExamplesConfig(), "channels", "crop"),
    **_shipped(
        "base",
        BaseConfig(),
        "loss",
        "warmup_ratio",
        "weight_decay",
        "ema_decay",
        "prior_bias",
        "augment",
        "window_jitter_hu",
        "positive_share",
        "tta",
        "keep_best",
        "folds",
    ),
}
_SHIPPED = {
    **_SHIPPED_BASE,
    **_shipped(
        "sequence",
        SequenceConfig(),
        "cell",
        "use_embeddings",
        "use_differences",
        "use_logits",
        "use_slice_features",
        "residual",
        "loss",
        "warmup_ratio",
        "weight_decay",
        "ema_decay",
        "keep_best",
    ),
}
# What alone made no difference, left out together.
_BARE_BASE = {"base.warmup_ratio": 0.0, "base.prior_bias": False, "base.keep_best": False}
_BARE = _BARE_BASE | {
    "sequence.residual": False,
    "sequence.warmup_ratio": 0.0,
    "sequence.keep_best": False,
}
ALL_ROWS = (
    Row(PLAIN, BASE, TRAIN_BASE, reference=None, decides="nothing added"),
    Row("prior", BASE, PRIOR),
    _base("bin_loss", loss="bin_loss"),
    _base("no_warmup", warmup_ratio=0.0),
    _base("weight_decay", weight_decay=0.05),
    _base("ema", ema_decay=0.999),
    _base("no_prior_bias", prior_bias=False),
    _base("no_augment", augment=False),
    _base("window_jitter", window_jitter_hu=4.0),
    _base("positive_share", positive_share=0.5),
    _base("last_epoch", keep_best=False),
    Row("tta_flip", BASE, RESCORE_BASE, {"base.tta": "flip"}, made_from=PLAIN),
    _examples("neighbours", channels="neighbours"),
    _examples("both", channels="both"),
    _examples("crop_head", crop="head"),
    Row(PLAIN_SEQUENCE, SEQUENCE, TRAIN_SEQUENCE, made_from=PLAIN, decides="sequence model"),
    _sequence(
        "seq_logits", use_slice_features=False, use_embeddings=False, use_differences=False
    ),
    _sequence("seq_features", use_embeddings=False, use_differences=False),
    _sequence("seq_embeddings", use_differences=False),
    _sequence("seq_gru", cell="gru"),
    _sequence("seq_no_residual", residual=False),
    _sequence("seq_ema", ema_decay=0.999),
    _sequence("seq_weight_decay", weight_decay=0.05),
    _sequence("seq_bin_loss", loss="masked_bin_loss"),
    _sequence("seq_no_warmup", warmup_ratio=0.0),
    _sequence("seq_last_epoch", keep_best=False),
    Row("both_share", COMBINED, TRAIN_BASE, _BOTH | _SHARE, "both"),
    Row("both_crop", COMBINED, TRAIN_BASE, _BOTH | _CROP, "both"),
    Row("both_crop_share", COMBINED, TRAIN_BASE, _ALL, "both_crop"),
    Row("seq_both", COMBINED, TRAIN_SEQUENCE, _BOTH, PLAIN_SEQUENCE, "both"),
    Row(SHIPPED, COMBINED, TRAIN_BASE, _SHIPPED_BASE, PLAIN),
    Row(SHIPPED_SEQUENCE, COMBINED, TRAIN_SEQUENCE, _SHIPPED, SHIPPED, SHIPPED),
    Row("bare", COMBINED, TRAIN_BASE, _SHIPPED_BASE | _BARE_BASE, SHIPPED),
    Row("bare_seq", COMBINED, TRAIN_SEQUENCE, _SHIPPED | _BARE, SHIPPED_SEQUENCE, "bare"),
    Row(FOLDS_BASE, FOLDS, TRAIN_BASE, _THREE_FOLDS),
    Row("folds_seq", FOLDS, TRAIN_SEQUENCE, _THREE_FOLDS, PLAIN_SEQUENCE, FOLDS_BASE),
    Row("scaled_base", CALIBRATION, SCALE, {}, PLAIN, PLAIN, "temperature scaling"),
    Row(
        "scaled_seq", CALIBRATION, SCALE, {}, PLAIN_SEQUENCE, PLAIN_SEQUENCE,
        "temperature scaling",
    ),
)  # fmt: skip
ROWS = {row.name: row for row in ALL_ROWS}


def choose_rows(names: Sequence[str] | None) -> list[Row]:
    """Rows of these names and those that they need, in the order of the table; all by default.

    Raises:
        UserError: there is no such row.
    """
    wanted: set[str] = set()
    waiting = list(names or ROWS)
    while waiting:
        name = waiting.pop()
        require(name in ROWS, f"--only {name}: no such row; there are: {', '.join(ROWS)}")
        if name not in wanted:
            wanted.add(name)
            waiting += ROWS[name].needs
    return [row for row in ALL_ROWS if row.name in wanted]


@dataclass(frozen=True)
class Sizes:
    """How much is drawn and trained.

    All patients are drawn as train patients, with labels: 144 are what an archive of 180 has when
    a fifth of them is its unlabelled test part, which nothing here would read.

    Attributes:
        train_patients: of the set that models are trained, chosen and calibrated on.
        judge_patients: of the set that they are judged on.
        image_size: pixels.
        val_ratio: share of the train set's patients by which epochs and temperatures are chosen.
        slices_per_shard: small, because folds are made of whole shards.
        base_epochs: of the base model.
        sequence_epochs: of the sequence model.
    """

    train_patients: int = 144
    judge_patients: int = 80
    image_size: int = 64
    val_ratio: float = 0.15
    slices_per_shard: int = 256
    base_epochs: int = 8
    sequence_epochs: int = 30


FULL = Sizes()
QUICK = Sizes(12, 6, 32, val_ratio=0.3, slices_per_shard=64, base_epochs=1, sequence_epochs=1)


def judge_seed(seed: int) -> int:
    """The seed that the judge set is drawn from: its patients are in no train set."""
    return 1000 + seed


def plain_config(sizes: Sizes, seed: int) -> Config:
    """The plain row's settings: spelled out, so that no default that changes changes them."""
    return Config(
        examples=ExamplesConfig(
            image_size=sizes.image_size,
            channels="windows",
            crop="none",
            val_ratio=sizes.val_ratio,
            slices_per_shard=sizes.slices_per_shard,
        ),
        base=BaseConfig(
            pretrained_model="small_cnn",
            pretrained_weights="none",
            batch_size=32,
            num_epochs=sizes.base_epochs,
            lr=1e-3,
            loss="weighted_loss",
            warmup_ratio=0.05,
            weight_decay=0.0,
            ema_decay=0.0,
            prior_bias=True,
            augment=True,
            window_jitter_hu=0.0,
            positive_share=0.0,
            tta="none",
            keep_best=True,
            folds=1,
            seed=seed,
        ),
        sequence=SequenceConfig(
            max_to_keep=48,
            batch_size=8,
            num_epochs=sizes.sequence_epochs,
            num_layers=1,
            cell="lstm",
            cell_size=64,
            use_embeddings=True,
            use_differences=True,
            use_logits=True,
            use_slice_features=True,
            residual=True,
            lr=1e-3,
            loss="masked_weighted_loss",
            warmup_ratio=0.05,
            weight_decay=0.0,
            ema_decay=0.0,
            keep_best=True,
            seed=seed,
        ),
    )


def config_of(row: Row, sizes: Sizes, seed: int) -> Config:
    """The resolved settings of a row.

    Raises:
        UserError: a section does not take a value.
    """
    config = plain_config(sizes, seed)
    for name, value in row.changes.items():
        section, setting = name.split(".")
        changed = dataclasses.replace(getattr(config, section), **{setting: value})
        config = dataclasses.replace(config, **{section: changed})
    return config


def judge_examples(examples: ExamplesConfig) -> ExamplesConfig:
    """How the judge set is built for a model: nearly all its patients are in validation."""
    return dataclasses.replace(examples, val_ratio=0.98, slices_per_shard=2048)


def key_of(row: Row, sizes: Sizes, seed: int) -> str:
    """A hash of all settings that a row's result depends on: another key is another result."""
    config = config_of(row, sizes, seed)
    parts = [row.how, row.made_from, seed, sizes.train_patients, sizes.judge_patients]
    parts += [to_mapping(config.examples), to_mapping(config.base)]
    if _uses_sequence(row):
        parts.append(to_mapping(config.sequence))
    return shards.fingerprint(*parts)[:8]


def model_id_of(row: Row, sizes: Sizes, seed: int) -> str:
    """Names a row's experiment; experiments take no underscores."""
    return f"{row.name.replace('_', '-')}-{key_of(row, sizes, seed)}"


def _uses_sequence(row: Row) -> bool:
    return row.how == TRAIN_SEQUENCE or row.made_from == PLAIN_SEQUENCE
