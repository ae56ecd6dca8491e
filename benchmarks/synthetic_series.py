"""Series of slices without pixels: what embeddings and sequences are made of, in any number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beam_pipelines import schema
from beam_pipelines.splits import split_of
from configs import ExamplesConfig

_SHORTEST = 20
_TEST_SHARE = 0.14
_POSITIVE_SHARE = 0.05
# So many different vectors stand in for all: their values do not matter, their bytes do.
_POOL = 512


@dataclass(frozen=True)
class SyntheticSeries:
    """A series: who it is of, and how many slices it has.

    Attributes:
        number: of the series.
        num_slices: its slices.
        split: train, validation or test.
        labels: 0 or 1, (num_slices, 6).
    """

    number: int
    num_slices: int
    split: str
    labels: np.ndarray

    @property
    def patient_id(self) -> str:
        """One patient in eight has two series."""
        return patient_of(self.number)

    def item(self, index: int) -> schema.Slice:
        """One slice; those of the test split have no labels."""
        last = self.num_slices - 1
        labelled = self.split != "test"
        return schema.Slice(
            image_id=f"ID_{self.number:06x}{index:03x}",
            patient_id=self.patient_id,
            study_instance_uid=f"ID_{self.number:010x}",
            series_instance_uid=f"ID_{self.number + (1 << 32):010x}",
            index=index,
            num_slices=self.num_slices,
            position_mm=5.0 * index,
            gap_below_mm=5.0 if index else 0.0,
            gap_above_mm=5.0 if index < last else 0.0,
            pixel_spacing_mm=0.488281,
            label=tuple(self.labels[index].tolist()) if labelled else None,
        )


def patient_of(series: int) -> str:
    """The patient of a series."""
    return f"ID_{series * 8 // 9:08x}"


def draw_series(num_slices: int, num_series: int, seed: int = 1) -> list[SyntheticSeries]:
    """Series of 20 slices and more, a few of more than 60, with so many slices in all."""
    rng = np.random.default_rng(seed)
    more = num_slices - _SHORTEST * num_series
    if more < 0:
        raise ValueError(f"{num_slices} slices are too few for {num_series} series")
    weights = rng.gamma(2.0, size=num_series)
    lengths = _SHORTEST + rng.multinomial(more, weights / weights.sum())
    config = ExamplesConfig()
    made = []
    for number, length in enumerate(lengths.tolist()):
        labels = (rng.random((length, schema.NUM_LABELS)) < _POSITIVE_SHARE).astype(np.int8)
        labels[:, -1] = labels[:, :-1].max(axis=1)
        patient = patient_of(number)
        # A patient's series are all in the split that the patient's id draws.
        drawn = np.random.default_rng(int(patient[3:], 16)).random()
        subset = "test" if drawn < _TEST_SHARE else "train"
        split = split_of(patient, subset, config.val_ratio, config.split_salt)
        made.append(SyntheticSeries(number, length, split, labels))
    return made


def totals(series: Sequence[SyntheticSeries]) -> dict[str, object]:
    """What a manifest says of the slices of a split."""
    labelled = [s for s in series if s.split != "test"]
    counts = sum((s.labels.sum(axis=0, dtype=np.int64) for s in labelled), np.zeros(6, np.int64))
    return {
        "num_slices": sum(s.num_slices for s in series),
        "num_labelled": sum(s.num_slices for s in labelled),
        "num_patients": len({s.patient_id for s in series}),
        "num_series": len(series),
        "label_counts": dict(zip(schema.SUBTYPES, counts.tolist(), strict=True)),
    }


class Vectors:
    """Random embeddings and logits, from a small pool."""

    def __init__(self, dim: int, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self._embeddings = rng.standard_normal((_POOL, dim), dtype=np.float32)
        self._logits = rng.standard_normal((_POOL, schema.NUM_LABELS), dtype=np.float32)

    def of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings, float32 (n, dim), and logits, (n, 6), of slices by their number."""
        return self._embeddings[numbers % _POOL], self._logits[numbers % _POOL]
