"""Training's rules: when it stops, what it keeps, and that it is repeatable."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trainer_data

from beam_pipelines.errors import UserError
from trainer import judging, model_files, registry, train_base, training
from trainer.experiment import Experiment


def _history(*losses: float) -> list[dict[str, float]]:
    return [
        {"epoch": number, judging.WEIGHTED_LOG_LOSS: loss}
        for number, loss in enumerate(losses, start=1)
    ]


def test_the_best_epoch_is_the_first_with_the_lowest_loss() -> None:
    assert training.best_epoch(_history(0.3)) == 1
    assert training.best_epoch(_history(0.3, 0.1, 0.2, 0.1)) == 2
    assert training.best_epoch(_history(math.nan, 0.4)) == 2
    assert training.best_epoch(_history(0.4, math.nan)) == 1


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ((), 1, False),
        ((0.3,), 1, False),
        ((0.3, 0.2), 1, False),
        ((0.3, 0.3), 1, True),
        ((0.3, 0.2, 0.4), 2, False),
        ((0.3, 0.2, 0.4, 0.2), 2, True),
        ((0.3, 0.4, 0.5, 0.6), 0, False),
    ],
)
def test_it_stops_after_epochs_without_a_better_loss(
    losses: tuple[float, ...], patience: int, stops: bool
) -> None:
    assert training.stops_early(_history(*losses), patience) == stops


def _judged_as(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Makes the judge of slices find these losses, epoch by epoch."""
    told = iter(losses)
    monkeypatch.setattr(
        judging.SliceJudge, "__call__", lambda self, model: {judging.WEIGHTED_LOG_LOSS: next(told)}
    )


def _weights_after(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, losses: list[float], **settings: Any
) -> tuple[Experiment, list[np.ndarray]]:
    trainer_data.write_data(data_dir)
    with monkeypatch.context() as patch:
        _judged_as(patch, losses)
        config = trainer_data.tiny_config(num_epochs=4, lr_schedule="constant", **settings)
        (found,) = train_base.train_base(str(data_dir), config)
    assert not Path(found.path(training.KEPT_MODEL)).exists()
    return found, model_files.load_model(found.model_file).get_weights()


def test_the_best_epoch_is_kept_and_training_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, kept = _weights_after(tmp_path / "1", monkeypatch, [0.5, 0.3, 0.4, 0.4], patience=2)
    assert [line["epoch"] for line in found.record()["history"]] == [1, 2, 3, 4]
    assert (
        "no better validation loss in 2 epochs: stopping after epoch 4" in capsys.readouterr().out
    )
    found, _ = _weights_after(tmp_path / "2", monkeypatch, [0.5, 0.6], patience=1)
    assert [line["epoch"] for line in found.record()["history"]] == [1, 2]
    # Told that only the second epoch is good, it keeps what two epochs make; else what four make.
    _, again = _weights_after(tmp_path / "3", monkeypatch, [0.5, 0.3, 0.4, 0.6])
    _, last = _weights_after(tmp_path / "4", monkeypatch, [0.5, 0.3, 0.4, 0.6], keep_best=False)
    for one, other in zip(kept, again, strict=True):
        assert np.allclose(one, other, atol=1e-6)
    assert any(np.abs(one - other).max() > 1e-3 for one, other in zip(kept, last, strict=True))
    assert found.record()["temperature"] > 0


def test_a_model_that_has_diverged_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_data.write_data(tmp_path)
    predict = judging.SliceJudge.predict

    def no_numbers(judge: judging.SliceJudge, model: Any) -> tuple[np.ndarray, np.ndarray]:
        labels, probabilities = predict(judge, model)
        return labels, np.full_like(probabilities, np.nan)

    monkeypatch.setattr(judging.SliceJudge, "predict", no_numbers)
    with pytest.raises(UserError, match="the validation loss is no number: training has diverged"):
        train_base.train_base(str(tmp_path), trainer_data.tiny_config(num_epochs=1), "d")
    found = registry.find_experiment(str(tmp_path), "base", "d")
    assert not found.finished
    assert not Path(found.model_file).exists()


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    """With all that is random: weights, order, augmentation, oversampling and dropout."""
    settings: dict[str, Any] = {
        "window_jitter_hu": 4.0,
        "positive_share": 0.5,
        "ema_decay": 0.9,
        "weight_decay": 0.01,
    }
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer_data.write_data(tmp_path / name)
        config = trainer_data.tiny_config(seed=seed, **settings)
        (found,) = train_base.train_base(str(tmp_path / name), config)
        weights.append(model_files.load_model(found.model_file).get_weights())
    for one, other in zip(weights[0], weights[1], strict=True):
        assert np.abs(one - other).max() <= 1e-6
    assert max(np.abs(a - c).max() for a, c in zip(weights[0], weights[2], strict=True)) > 1e-3
