"""Models as functions of arrays: any number of rows, any thread, one trace."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trainer_data

from trainer import experiment, inference, model_files, registry
from trainer.base_model import embedding_model


@pytest.fixture(scope="module")
def base(trained: Path) -> experiment.Experiment:
    return registry.find_experiment(str(trained), experiment.BASE, trainer_data.BASE_MODEL_ID)


@pytest.fixture(scope="module")
def lstm(trained: Path) -> experiment.Experiment:
    return registry.find_experiment(str(trained), experiment.LSTM)


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_base_scores_any_number_of_images(base: experiment.Experiment, count: int) -> None:
    scorer = inference.load_base(base, batch_size=4)
    embeddings, logits = scorer(_images(count))
    assert embeddings.shape == (count, 128)
    assert logits.shape == (count, 6)
    assert embeddings.dtype == logits.dtype == np.float32
    if count:
        model = embedding_model(model_files.load_model(base.model_file))
        expected = model(_images(count), training=False)
        assert np.allclose(embeddings, expected[0], atol=1e-5)
        assert np.allclose(logits, expected[1], atol=1e-5)


def test_a_large_model_keeps_its_variables(
    base: experiment.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = inference.load_base(base)(_images(5))
    monkeypatch.setattr(inference, "_MAX_CONSTANT_BYTES", 0)
    variable = inference.load_base(base)(_images(5))
    for one, two in zip(constant, variable, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_threads_may_share_a_scorer(base: experiment.Experiment) -> None:
    scorer = inference.load_base(base, batch_size=4)
    parts = [_images(9)[start : start + 3] for start in (0, 3, 6)] * 4
    expected = scorer(_images(9))[1]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(scorer, parts))
    for number, (_, logits) in enumerate(results):
        start = 3 * (number % 3)
        assert np.allclose(logits, expected[start : start + 3], atol=1e-5)


def test_sequence_scores_any_number_of_sequences(lstm: experiment.Experiment) -> None:
    scorer = inference.load_sequence(lstm, batch_size=3)
    model = model_files.load_model(lstm.model_file)
    for count in (1, 3, 5):
        rng = np.random.default_rng(count)
        arrays = {
            "embeddings": rng.normal(size=(count, 8, 12)).astype(np.float32),
            "logits": rng.normal(size=(count, 8, 6)).astype(np.float32),
            "slice_features": rng.normal(size=(count, 8, 3)).astype(np.float32),
            "mask": np.arange(8) < rng.integers(1, 9, (count, 1)),
        }
        logits = scorer(arrays)
        assert logits.shape == (count, 8, 6)
        arrays["mask"] = arrays["mask"].astype(np.uint8)
        assert np.allclose(logits, model(arrays, training=False), atol=1e-5)


def test_an_experiment_may_be_in_another_root(base: experiment.Experiment, tmp_path: Path) -> None:
    found = registry.find_experiment(str(tmp_path), experiment.BASE, base.folder)
    assert inference.load_base(found, batch_size=2).image_size == 32
