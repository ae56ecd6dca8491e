"""The sequence model: padding and company have no effect; it starts as the base model."""

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import SequenceConfig
from trainer import model_files, sequence_model

CONFIG = SequenceConfig(num_layers=2, cell_size=6, dropout_rate=0.5)


def _trained_like(seed: int = 0) -> keras.Model:
    """A model whose correction is no longer zero."""
    keras.utils.set_random_seed(seed)
    model = sequence_model.build_sequence_model(CONFIG, 5, 3)
    head = model.get_layer("correction")
    rng = np.random.default_rng(seed)
    head.set_weights([rng.normal(size=w.shape) for w in head.get_weights()])
    return model


MODEL = _trained_like()


def _arrays(lengths: list[int], width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Sequences of the given lengths; padding holds noise, which must not matter either."""
    rng = np.random.default_rng(seed)
    arrays = {
        name: rng.normal(size=(len(lengths), width, dim)).astype(np.float32)
        for name, dim in (("embeddings", 5), ("logits", 6), ("slice_features", 3))
    }
    mask = np.arange(width) < np.array(lengths)[:, np.newaxis]
    return {**arrays, "mask": mask.astype(np.uint8)}


def test_training_starts_at_the_base_logits() -> None:
    model = sequence_model.build_sequence_model(CONFIG, 5, 3)
    arrays = _arrays([4, 2], 4)
    assert np.array_equal(model(arrays, training=False), arrays["logits"])


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    extra=st.integers(0, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_padding_has_no_effect(lengths: list[int], extra: int, seed: int) -> None:
    short = _arrays(lengths, max(lengths), seed)
    expected = MODEL(short, training=False).numpy()
    longer = _arrays(lengths, max(lengths) + extra, seed + 1)
    for name, array in short.items():
        longer[name][:, : max(lengths)] = array
    output = MODEL(longer, training=False).numpy()
    real = short["mask"] == 1
    assert np.allclose(output[:, : max(lengths)][real], expected[real], atol=1e-6)


def test_batch_order_and_company_have_no_effect() -> None:
    arrays = _arrays([5, 1, 3], 5)
    expected = MODEL(arrays, training=False).numpy()
    order = [2, 0, 1]
    shuffled = {name: array[order] for name, array in arrays.items()}
    assert np.allclose(MODEL(shuffled, training=False), expected[order], atol=1e-6)
    alone = {name: array[2:] for name, array in arrays.items()}
    assert np.allclose(MODEL(alone, training=False), expected[2:], atol=1e-6)


def test_neighbours_on_both_sides_matter() -> None:
    arrays = _arrays([5], 5)
    expected = MODEL(arrays, training=False).numpy()
    for changed, watched in ((0, 4), (4, 0)):
        other = {name: array.copy() for name, array in arrays.items()}
        other["embeddings"][0, changed] += 1.0 + np.arange(5)
        output = MODEL(other, training=False).numpy()
        assert not np.allclose(output[0, watched], expected[0, watched], atol=1e-6)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_saved_model_is_the_same(tmp_path: Path, num_layers: int) -> None:
    config = SequenceConfig(num_layers=num_layers, cell_size=4)
    model = sequence_model.build_sequence_model(config, 5, 3)
    head = model.get_layer("correction")
    head.set_weights([np.ones(w.shape) for w in head.get_weights()])
    path = str(tmp_path / "model.keras")
    model_files.save_model(model, path)
    arrays = _arrays([4, 2], 4)
    expected = model(arrays, training=False)
    again = model_files.load_model(path)(arrays, training=False)
    assert np.allclose(again, expected, atol=1e-6)
    assert not np.allclose(expected, arrays["logits"], atol=1e-3)
