"""Numbers that describe a slice's place in its series, before they are scaled.

They are scaled by tensorflow-transform, whose means and variances are fitted on the train split
alone and saved with the base experiment; see `beam_pipelines.transform_graph`.
"""

from collections.abc import Sequence

import numpy as np

from beam_pipelines.schema import NUM_LABELS, Slice

SLICE_FEATURES = (
    "height_mm",
    "relative_height",
    "gap_below_mm",
    "gap_above_mm",
    "pixel_spacing_mm",
    "num_slices",
)


def raw_features(series: Sequence[Slice]) -> dict[str, np.ndarray]:
    """The features of an ordered series.

    Args:
        series: all slices of one series, from feet to head.

    Returns:
        float32 (num_slices,) for each of SLICE_FEATURES: distance from the lowest slice in mm, the
        same as a share of the series' height (0.5 throughout where all slices are at one place),
        distances to the neighbours in mm, pixel spacing in mm, number of slices.
    """
    positions = np.array([item.position_mm for item in series])
    height = positions - positions[0]
    total = height[-1]
    relative = height / total if total > 0 else np.full(len(series), 0.5)
    columns = {
        "height_mm": height,
        "relative_height": relative,
        "gap_below_mm": [item.gap_below_mm for item in series],
        "gap_above_mm": [item.gap_above_mm for item in series],
        "pixel_spacing_mm": [item.pixel_spacing_mm for item in series],
        "num_slices": np.full(len(series), len(series)),
    }
    return {name: np.asarray(columns[name], np.float32) for name in SLICE_FEATURES}


def labels_of(series: Sequence[Slice]) -> tuple[np.ndarray, np.ndarray]:
    """The labels of slices, and which slices have any.

    Returns:
        float32 (num_slices, 6), 0 where a slice is unlabelled, and float32 (num_slices,), 1 where
        it is labelled.
    """
    labelled = np.array([item.label is not None for item in series], np.float32)
    labels = np.array([item.label or (0,) * NUM_LABELS for item in series], np.float32)
    return labels, labelled
