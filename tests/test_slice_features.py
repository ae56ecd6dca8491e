import dataclasses

import numpy as np
from embedding_data import make_items

from beam_pipelines.slice_features import SLICE_FEATURES, labels_of, raw_features


def test_features_of_a_series():
    found = raw_features(make_items("a", 3, spacing_mm=4))
    assert {name: values.tolist() for name, values in found.items()} == {
        "height_mm": [0, 4, 8],
        "relative_height": [0, 0.5, 1],
        "gap_below_mm": [0, 4, 4],
        "gap_above_mm": [4, 4, 0],
        "pixel_spacing_mm": [0.5] * 3,
        "num_slices": [3] * 3,
    }
    assert tuple(found) == SLICE_FEATURES
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}


def test_slices_at_one_place_are_in_its_middle():
    for count in (1, 2):
        found = raw_features(make_items("a", count, spacing_mm=0))
        assert found["relative_height"].tolist() == [0.5] * count
        assert found["height_mm"].tolist() == [0] * count


def test_labels():
    items = make_items("a", 3)
    items[1] = dataclasses.replace(items[1], label=None)
    labels, labelled = labels_of(items)
    assert labelled.tolist() == [1, 0, 1]
    assert labels.tolist() == [list(items[0].label or ()), [0] * 6, list(items[2].label or ())]
