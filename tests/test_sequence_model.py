"""The sequence model: padding and company have no effect; it starts as the base model."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.errors import UserError
from beam_pipelines.sequences import window_starts
from configs import SequenceConfig
from trainer import metrics, model_files, sequence_model

CONFIG = SequenceConfig(num_layers=2, cell_size=6, dropout_rate=0.5, residual=True)
FOLDS = 3
NOTHING = {
    name: False
    for name in ("use_embeddings", "use_differences", "use_logits", "use_slice_features")
}


def _trained_like(folds: int, **changes: Any) -> keras.Model:
    """A model whose weights are no longer those that it starts from."""
    keras.utils.set_random_seed(0)
    config = dataclasses.replace(CONFIG, **changes)
    model = sequence_model.build_sequence_model(config, 5, 3, folds)
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


MODELS = {
    "lstm": _trained_like(1),
    "gru": _trained_like(1, cell="gru"),
    "folds": _trained_like(FOLDS),
    "not residual": _trained_like(FOLDS, cell="gru", residual=False),
}
ANY_MODEL = pytest.mark.parametrize("name", MODELS)


def _arrays(lengths: list[int], width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Sequences of the given lengths; padding holds noise, which must not matter either."""
    rng = np.random.default_rng(seed)
    arrays = {
        name: rng.normal(size=(len(lengths), width, dim)).astype(np.float32)
        for name, dim in (("embeddings", 5), ("logits", 6), ("slice_features", 3))
    }
    mask = np.arange(width) < np.array(lengths)[:, np.newaxis]
    fold = (np.arange(len(lengths)) + seed) % FOLDS
    return {**arrays, "mask": mask.astype(np.uint8), "fold": fold.astype(np.int32)}


def _run(model: keras.Model, arrays: dict[str, np.ndarray]) -> np.ndarray:
    given = {name: arrays[name] for name in model.input}
    return model(given, training=False).numpy()


@pytest.mark.parametrize("folds", [1, FOLDS])
def test_training_starts_at_the_base_logits(folds: int) -> None:
    model = sequence_model.build_sequence_model(CONFIG, 5, 3, folds)
    arrays = _arrays([4, 2], 4)
    real = arrays["mask"] == 1
    assert np.array_equal(_run(model, arrays)[real], arrays["logits"][real])


def test_without_residual_it_starts_anew() -> None:
    config = dataclasses.replace(CONFIG, residual=False, use_logits=False)
    model = sequence_model.build_sequence_model(config, 5, 3)
    arrays = _arrays([4, 2], 4)
    found = _run(model, arrays)
    assert np.abs(found[0]).max() > 0
    assert np.array_equal(_run(model, {**arrays, "logits": 9 + arrays["logits"]}), found)


@ANY_MODEL
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    extra=st.integers(0, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=6, deadline=None)
def test_padding_has_no_effect(name: str, lengths: list[int], extra: int, seed: int) -> None:
    short = _arrays(lengths, max(lengths), seed)
    expected = _run(MODELS[name], short)
    longer = {**_arrays(lengths, max(lengths) + extra, seed + 1), "fold": short["fold"]}
    for key in ("embeddings", "logits", "slice_features"):
        longer[key][:, : max(lengths)] = short[key]
    output = _run(MODELS[name], longer)
    real = short["mask"] == 1
    assert np.allclose(output[:, : max(lengths)][real], expected[real], atol=1e-6)


@ANY_MODEL
@pytest.mark.parametrize("garbage", [0.0, 1e30, np.inf, np.nan])
def test_what_padding_holds_has_no_effect(name: str, garbage: float) -> None:
    arrays = _arrays([2, 5, 1], 5)
    expected = _run(MODELS[name], arrays)
    real = arrays["mask"] == 1
    for key in ("embeddings", "logits", "slice_features"):
        arrays[key][~real] = garbage
    assert np.allclose(_run(MODELS[name], arrays)[real], expected[real], atol=1e-6)


@ANY_MODEL
def test_batch_order_and_company_have_no_effect(name: str) -> None:
    model, arrays = MODELS[name], _arrays([5, 1, 3], 5)
    expected = _run(model, arrays)
    for order in itertools.permutations(range(3)):
        shuffled = {key: array[list(order)] for key, array in arrays.items()}
        assert np.allclose(_run(model, shuffled), expected[list(order)], atol=1e-6)
    alone = {key: array[2:] for key, array in arrays.items()}
    assert np.allclose(_run(model, alone), expected[2:], atol=1e-6)


@ANY_MODEL
def test_neighbours_on_both_sides_matter(name: str) -> None:
    arrays = _arrays([5], 5)
    expected = _run(MODELS[name], arrays)
    for changed, watched in ((0, 4), (4, 0)):
        other = {key: array.copy() for key, array in arrays.items()}
        other["embeddings"][0, changed] += 1.0 + np.arange(5)
        output = _run(MODELS[name], other)
        assert not np.allclose(output[0, watched], expected[0, watched], atol=1e-6)


def test_differences_are_zero_at_the_ends_and_beside_padding() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32)[..., np.newaxis]
    below, above = (np.asarray(d) for d in sequence_model.differences(x, mask))
    expected = np.zeros_like(x)
    expected[0, 1:] = np.diff(x[0], axis=0)
    expected[1, 1] = x[1, 1] - x[1, 0]
    assert np.array_equal(below, expected)
    assert np.array_equal(above[:, :-1], expected[:, 1:])
    assert not above[:, -1].any()


def test_a_row_that_fills_up_a_batch_has_a_slice_for_cudnn() -> None:
    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], np.uint8)
    found = np.asarray(sequence_model.recurrent_mask(mask))
    assert found.tolist() == [[True, True, False], [True, False, False], [True, False, False]]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("use_embeddings", "embeddings"),
        ("use_differences", "embeddings"),
        ("use_logits", "logits"),
        ("use_slice_features", "slice_features"),
    ],
)
@pytest.mark.parametrize("folds", [1, FOLDS])
def test_each_input_may_be_the_only_one(setting: str, key: str, folds: int) -> None:
    model = _trained_like(folds, residual=False, **{**NOTHING, setting: True})
    arrays = _arrays([4], 4)
    expected = _run(model, arrays)
    for name in ("embeddings", "logits", "slice_features"):
        other = {**arrays, name: arrays[name] + np.random.default_rng(1).normal(size=(4, 1))}
        if name == "embeddings":
            other[name] = other[name] * np.arange(5)
        assert np.allclose(_run(model, other), expected, atol=1e-6) == (name != key)


def test_without_any_input_it_is_refused() -> None:
    config = dataclasses.replace(CONFIG, **NOTHING)
    with pytest.raises(UserError, match="use_slice_features are all false, so that nothing is le"):
        sequence_model.build_sequence_model(config, 5, 3)


def test_folds_start_alike_and_learn_apart() -> None:
    keras.utils.set_random_seed(0)
    config = dataclasses.replace(CONFIG, residual=False, dropout_rate=0.0)
    model = sequence_model.build_sequence_model(config, 5, 3, FOLDS)
    arrays = _arrays([4, 4], 4)
    same = [_run(model, {**arrays, "fold": np.full(2, fold, np.int32)}) for fold in range(FOLDS)]
    assert np.array_equal(same[0], same[1])
    assert np.array_equal(same[0], same[2])
    (before,) = model.get_layer("fold_matrices").get_weights()
    assert np.std(before) > 0.1
    model.compile("sgd", "mse")
    arrays["fold"][:] = 1
    model.train_on_batch(arrays, np.ones((2, 4, 6), np.float32))
    (after,) = model.get_layer("fold_matrices").get_weights()
    assert (before != after).any(axis=1).tolist() == [False, True, False]


def test_differences_inside_a_window_are_those_of_the_series() -> None:
    """Only a window's first slice lacks one below and its last one above."""
    series = np.random.default_rng(0).normal(size=(14, 5)).astype(np.float32)
    starts = window_starts(14, 6)
    assert starts == [0, 3, 6, 8]
    windows = np.stack([series[start : start + 6] for start in starts])
    ones = np.ones((len(starts), 6, 1), np.float32)
    below, above = (np.asarray(d) for d in sequence_model.differences(windows, ones))
    for row, start in enumerate(starts):
        steps = np.diff(series[start : start + 6], axis=0)
        assert np.array_equal(below[row], [np.zeros(5), *steps])
        assert np.array_equal(above[row], [*steps, np.zeros(5)])


@ANY_MODEL
def test_windows_of_a_long_series_are_scored_each_for_itself(name: str) -> None:
    series, starts = _arrays([14], 14), window_starts(14, 6)
    cut = {
        key: np.stack([series[key][0, start : start + 6] for start in starts])
        for key in ("embeddings", "logits", "slice_features", "mask")
    }
    output = _run(MODELS[name], {**cut, "fold": np.zeros(len(starts), np.int32)})
    ids = [str(start + row) for start in starts for row in range(6)]
    means = metrics.mean_by_image(ids, output.reshape(-1, 6))
    assert sorted(map(int, means)) == list(range(14))
    # Slice 4 is in the first window, at 4, and in the second, at 1.
    assert np.allclose(means["4"], (output[0, 4] + output[1, 1]) / 2, atol=1e-6)
    assert not np.allclose(output[0, 4], output[1, 1], atol=1e-6)


@ANY_MODEL
def test_a_saved_model_is_the_same(tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    path = str(tmp_path / "model.keras")
    model_files.save_model(model, path)
    arrays = _arrays([4, 2], 4)
    expected = _run(model, arrays)
    loaded = model_files.load_model(path)
    assert loaded.input.keys() == model.input.keys()
    assert np.allclose(_run(loaded, arrays), expected, atol=1e-6)
    assert not np.allclose(expected, arrays["logits"], atol=1e-3)
