"""The optimizer: its schedule, what decays, and averaged weights."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import BaseConfig
from trainer.optimizer import averaged_weights, make_optimizer


def _rates(num_steps: int, **settings: Any) -> list[float]:
    optimizer = make_optimizer(BaseConfig(lr=0.1, **settings), num_steps)
    schedule = optimizer._learning_rate
    return [float(schedule(tf.constant(step))) for step in range(num_steps + 1)]


def test_cosine_rises_for_the_warm_up_and_falls_to_zero() -> None:
    rates = _rates(100, warmup_ratio=0.1)
    assert rates[:11] == pytest.approx([0.01 * step for step in range(11)], abs=1e-8)
    assert max(rates) == rates[10]
    assert rates[55] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0.0, abs=1e-8)


def test_without_warm_up_it_starts_at_the_top() -> None:
    assert _rates(10, warmup_ratio=0.0)[0] == pytest.approx(0.1)
    constant = _rates(20, warmup_ratio=0.0, lr_schedule="constant")
    assert constant == pytest.approx([0.1] * 21)
    risen = _rates(20, warmup_ratio=0.1, lr_schedule="constant")
    assert risen == pytest.approx([0.0, 0.05] + [0.1] * 19)


def _model(**settings: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    config = BaseConfig(lr=0.1, lr_schedule="constant", warmup_ratio=0.0, **settings)
    model.compile(make_optimizer(config, 10), "mse")
    model.set_weights([np.ones((4, 3)), np.ones(3)])
    return model


def _train(model: Any, steps: int) -> list[np.ndarray]:
    """The kernel after each step."""
    kernels = []
    rng = np.random.default_rng(0)
    for _ in range(steps):
        model.train_on_batch(rng.normal(size=(8, 4)), rng.normal(size=(8, 3)))
        kernels.append(model.get_weights()[0])
    return kernels


def test_kernels_decay_and_biases_do_not() -> None:
    # Inputs and targets without gradient: the decay alone moves the weights.
    model = _model(weight_decay=0.5)
    model.train_on_batch(np.zeros((2, 4)), np.ones((2, 3)))
    kernel, bias = model.get_weights()
    assert kernel == pytest.approx(np.full((4, 3), 1 - 0.5 * 0.1))
    assert bias == pytest.approx(np.ones(3))


def test_averages_follow_their_formula() -> None:
    model = _model(ema_decay=0.3)
    kernels = _train(model, 6)
    average = np.zeros((4, 3))
    for step, kernel in enumerate(kernels):
        decay = min(0.3, step / (9 + step))
        average = decay * average + (1 - decay) * kernel
    with averaged_weights(model):
        assert model.get_weights()[0] == pytest.approx(average, rel=1e-4)
    assert np.array_equal(model.get_weights()[0], kernels[-1])
    # They come back after an error, too, and training goes on undisturbed.
    with pytest.raises(KeyError), averaged_weights(model):
        raise KeyError
    assert np.array_equal(model.get_weights()[0], kernels[-1])


def test_without_averaging_or_steps_nothing_is_swapped() -> None:
    for model in (_model(), _model(ema_decay=0.9)):
        with averaged_weights(model):
            assert np.array_equal(model.get_weights()[0], np.ones((4, 3)))
