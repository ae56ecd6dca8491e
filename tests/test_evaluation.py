"""The report of labels and probabilities, without models."""

import json

import numpy as np
import pytest

from beam_pipelines import schema
from trainer import calibration, evaluation, metrics
from trainer.bootstrap import Bootstrap
from trainer.evaluation import LEVELS, SLICE, STUDY, SUBTYPE_METRICS
from trainer.evaluation_table import table
from trainer.scoring import Predictions

PRIORS = {name: 0.1 for name in schema.SUBTYPES}


def make_predictions(num_patients: int = 12, seed: int = 0) -> Predictions:
    """Patients with two studies of four slices; `epidural` is never positive."""
    rng = np.random.default_rng(seed)
    patient, study = (
        np.repeat(np.arange(num_patients), 8),
        np.repeat(np.arange(2 * num_patients), 4),
    )
    labels = (rng.random((len(patient), 6)) < 0.3).astype(int)
    labels[:, 0] = 0
    logits = 2.0 * labels - 1 + rng.normal(size=labels.shape)
    return Predictions(
        np.array([f"i{number}" for number in range(len(patient))]),
        np.array([f"p{number}" for number in patient]),
        np.array([f"s{number}" for number in study]),
        labels,
        metrics.sigmoid(6 * logits),
        metrics.sigmoid(4 * logits + labels),
    )


def make_report(
    predictions: Predictions, priors: dict[str, float] | None, bootstrap: Bootstrap
) -> dict:
    found = evaluation.evaluate_predictions(predictions, priors, bootstrap)
    return {"split": "validation", **found}


@pytest.fixture(scope="module")
def report() -> dict:
    return make_report(make_predictions(), PRIORS, Bootstrap(200))


def test_counts(report: dict) -> None:
    predictions = make_predictions()
    counts = [report[name] for name in ("num_patients", "num_studies", "num_slices")]
    assert counts == [12, 24, 96]
    positives = dict(zip(schema.SUBTYPES, predictions.labels.sum(0).tolist(), strict=True))
    assert report["positives"][SLICE] == positives
    of_studies = predictions.labels.reshape(24, 4, 6).max(1).sum(0).tolist()
    assert list(report["positives"][STUDY].values()) == of_studies
    bootstrap = {"resamples": 200, "seed": 0, "confidence": 0.95, "unit": "patient"}
    assert report["bootstrap"] == bootstrap


def test_values_are_those_of_the_plain_metrics(report: dict) -> None:
    predictions = make_predictions()
    labels, lstm = predictions.labels, predictions.lstm
    assert lstm is not None
    judged = report["models"]["lstm"][SLICE]
    losses = metrics.log_losses(labels, lstm)
    expected = metrics.weighted_log_loss(labels, lstm)
    assert judged["weighted_log_loss"]["value"] == pytest.approx(expected)
    for column, name in enumerate(schema.SUBTYPES):
        figures = judged["subtypes"][name]
        assert figures["log_loss"]["value"] == pytest.approx(losses[name])
        expected = calibration.expected_calibration_error(labels[:, column], lstm[:, column])
        assert figures["expected_calibration_error"]["value"] == pytest.approx(expected)
        pairs = lstm[labels[:, column] == 1, column][:, None] > lstm[labels[:, column] == 0, column]
        if pairs.size:
            assert figures["roc_auc"]["value"] == pytest.approx(pairs.mean())


def test_a_study_is_its_largest_slice(report: dict) -> None:
    predictions = make_predictions()
    labels, base = (v.reshape(24, 4, 6).max(1) for v in (predictions.labels, predictions.base))
    found = report["models"]["base"][STUDY]["weighted_log_loss"]["value"]
    assert found == pytest.approx(metrics.weighted_log_loss(labels, base))


def test_a_study_uid_of_two_patients_is_two_studies() -> None:
    level = evaluation.Level(np.eye(6)[:4], np.array([0, 1, 0, 1]), {"base": np.eye(6)[:4] / 2})
    studies = evaluation.study_level(level, np.array(["s", "s", "s", "t"]))
    assert studies.patients.tolist() == [0, 1, 1]
    assert studies.labels.tolist() == [[1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert np.array_equal(studies.probabilities["base"], studies.labels / 2)


def test_intervals_are_those_of_drawn_patients(report: dict) -> None:
    """Recomputed from slices that are really repeated."""
    predictions = make_predictions()
    ids = np.unique(predictions.patient_ids)
    rows = [np.flatnonzero(predictions.patient_ids == patient) for patient in ids]
    losses, ratios = [], []
    for weights in Bootstrap(200).weights(12)[1:]:
        drawn = np.concatenate([np.tile(row, n) for row, n in zip(rows, weights, strict=True)])
        labels = predictions.labels[drawn]
        base = metrics.weighted_log_loss(labels, predictions.base[drawn])
        lstm = metrics.weighted_log_loss(labels, predictions.lstm[drawn])
        losses.append(lstm)
        ratios.append(lstm / base)
    found = report["models"]["lstm"][SLICE]["weighted_log_loss"]
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(losses, [2.5, 97.5]))
    found = report["comparisons"][SLICE]["lstm/base"]["ratio"]
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(ratios, [2.5, 97.5]))
    assert found["low"] < found["value"] < found["high"]


def test_calibrated_models_are_tempered_across_patients(report: dict) -> None:
    predictions = make_predictions()
    half = calibration.halves(predictions.patient_ids.tolist())
    tempered, used = calibration.temper_across(predictions.labels, predictions.base, half)
    found = report["models"]["base_calibrated"][SLICE]["weighted_log_loss"]["value"]
    assert found == pytest.approx(metrics.weighted_log_loss(predictions.labels, tempered))
    assert report["temperature_halves"]["base"] == list(used)
    expected = calibration.fit_temperature(predictions.labels, predictions.base)
    assert report["temperature"]["base"] == expected
    # These logits are far too sure.
    assert found < report["models"]["base"][SLICE]["weighted_log_loss"]["value"]


def test_what_is_undefined_is_null_and_nan_is_nowhere(report: dict) -> None:
    nothing = {"value": None, "low": None, "high": None}
    for level in LEVELS:
        for model in report["models"].values():
            epidural = model[level]["subtypes"]["epidural"]
            assert epidural["roc_auc"] == epidural["average_precision"] == nothing
            assert epidural["log_loss"]["low"] is not None
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_prior_is_chance(report: dict) -> None:
    for name in schema.SUBTYPES[1:]:
        figures = report["models"]["prior"][SLICE]["subtypes"][name]
        assert figures["roc_auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
        rate = report["positives"][SLICE][name] / 96
        assert figures["average_precision"]["value"] == pytest.approx(rate)
        assert figures["expected_calibration_error"]["value"] == pytest.approx(abs(rate - 0.1))


def test_reliability_counts_every_slice(report: dict) -> None:
    assert len(report["bin_edges"]) == 16
    for level, num in ((SLICE, 96), (STUDY, 24)):
        bins = report["models"]["base"][level]["subtypes"]["any"]["reliability"]
        assert sum(bins["count"]) == num
        filled = [n > 0 for n in bins["count"]]
        assert [value is not None for value in bins["mean_probability"]] == filled
        rates = zip(bins["count"], bins["positive_rate"], strict=True)
        positives = sum(count * (rate or 0) for count, rate in rates)
        assert positives == pytest.approx(report["positives"][level]["any"])
    edges = zip(report["bin_edges"], report["bin_edges"][1:], strict=False)
    bins = report["models"]["lstm"][SLICE]["subtypes"]["any"]["reliability"]
    for (low, high), mean in zip(edges, bins["mean_probability"], strict=True):
        assert mean is None or low <= mean <= high


def test_without_resamples_there_are_no_intervals() -> None:
    report = make_report(make_predictions(), PRIORS, Bootstrap(0))
    judged = report["models"]["lstm"][STUDY]
    for estimate in (judged["weighted_log_loss"], judged["subtypes"]["any"]["roc_auc"]):
        assert estimate["value"] is not None
        assert estimate["low"] is estimate["high"] is None
    text = table(report)
    assert "[" not in text
    assert "resamples" not in text


def test_a_base_model_alone_without_priors() -> None:
    predictions = make_predictions()
    alone = Predictions(**{**vars(predictions), "lstm": None})
    report = make_report(alone, None, Bootstrap(20))
    assert list(report["models"]) == ["base", "base_calibrated"]
    assert report["comparisons"] == {SLICE: {}, STUDY: {}}
    assert list(report["temperature"]) == ["base"]
    assert "lstm" not in table(report)


def test_one_patient_is_enough() -> None:
    report = make_report(make_predictions(1), PRIORS, Bootstrap(20))
    # There is no other half to fit a temperature to.
    assert report["temperature_halves"]["base"] == [report["temperature"]["base"], 1.0]
    loss = report["models"]["base_calibrated"][SLICE]["weighted_log_loss"]
    assert loss == pytest.approx(report["models"]["base"][SLICE]["weighted_log_loss"])


def test_the_table_is_readable(report: dict) -> None:
    text = table(report)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if line != line.rstrip()]
    assert lines[0].startswith(
        "validation: 96 slices, 24 studies, 12 patients; [95% intervals of 2"
    )
    estimate = report["models"]["base"][STUDY]["weighted_log_loss"]
    row = next(line for line in lines if line.startswith("  base  "))
    cell = f"{estimate['value']:.4f} [{estimate['low']:.4f}, {estimate['high']:.4f}]"
    assert row.endswith(cell)
    names = ["prior", "base", "lstm", "base_calibrated", "lstm_calibrated"]
    start = lines.index(next(line for line in lines if line.split() == ["studies", *names]))
    assert lines[start + 1] == "log loss"
    subtypes = [line.split()[0] for line in lines[start + 2 : start + 8]]
    assert subtypes == list(schema.SUBTYPES)
    assert lines[start + 8 :: 7] == ["ROC AUC", "average precision", "expected calibration error"]
    assert lines[start + 9].split() == ["epidural", *["-"] * 5]
    values = [report["models"][n][STUDY]["subtypes"]["any"]["roc_auc"]["value"] for n in names]
    assert lines[start + 14].split() == ["any", *(f"{value:.4f}" for value in values)]
    # Also from the file, whose keys are in the alphabet's order.
    assert table(json.loads(json.dumps(report, sort_keys=True))) == text
    assert set(SUBTYPE_METRICS) < set(report["models"]["base"][SLICE]["subtypes"]["any"])
