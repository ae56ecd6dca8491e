"""The figures of an evaluation, from labels and probabilities: what `evaluation.json` holds.

    format_version       2
    model_type           lstm or base
    model_id             of the experiment that is judged
    base_model_ids       of the base models whose embeddings it judges
    split                validation or train
    data_fingerprint     of the shards that were read
    num_patients, num_studies, num_slices
                         labelled ones
    positives            {level: {subtype: number}}
    bootstrap            {resamples, seed, confidence, unit}
    bin_edges            16 numbers from 0 to 1: the bins of calibration error and reliability
    temperature          {model: T}, fitted on all of the split; model is base or lstm
    temperature_halves   {model: [T, T]}, that its calibrated model was tempered with
    models               {model: {level: figures}}
    comparisons          {level: {"lstm/base": {ratio, difference}}}, of weighted log losses

A level is `slice` or `study`: a study's label is the largest of its slices', and so is its
probability. A model is `prior` (the train split's label priors), `base`, `lstm`, `base_calibrated`
or `lstm_calibrated`; those that were not judged are absent. A calibrated model is tempered by
halves of the patients, each with the temperature fitted on the other (`calibration.temper_across`);
slices of the two are ranked as they come, so ROC AUC and average precision change a little too.

    figures              {weighted_log_loss, subtypes: {subtype: {log_loss, roc_auc,
                          average_precision, expected_calibration_error, reliability}}}
    reliability          {count, mean_probability, positive_rate}: 15 values each, a bin's means
                         are null where its count is 0

Every other figure is {value, low, high}: low and high bound its bootstrap interval over patients
(`bootstrap`), in which temperatures stay as they are. What is undefined is null: ROC AUC where a
class is absent, average precision without positives, intervals without resamples or of figures that
are undefined in more than a twentieth of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from beam_pipelines import schema
from trainer import calibration, metrics
from trainer.bootstrap import Bootstrap, patient_sums
from trainer.experiment import BASE, LSTM
from trainer.metrics import SUBTYPE_WEIGHTS
from trainer.ranking import Ranking
from trainer.scoring import Predictions

# 1 was `losses` alone.
FORMAT_VERSION = 2
PRIOR = "prior"
BASE_CALIBRATED, LSTM_CALIBRATED = "base_calibrated", "lstm_calibrated"
MODELS = (PRIOR, BASE, LSTM, BASE_CALIBRATED, LSTM_CALIBRATED)
COMPARED = ((LSTM, BASE), (LSTM_CALIBRATED, BASE_CALIBRATED))
SLICE, STUDY = "slice", "study"
LEVELS = (SLICE, STUDY)
WEIGHTED = "weighted_log_loss"
LOG_LOSS, ROC_AUC = "log_loss", "roc_auc"
AVERAGE_PRECISION = "average_precision"
CALIBRATION_ERROR = "expected_calibration_error"
SUBTYPE_METRICS = (LOG_LOSS, ROC_AUC, AVERAGE_PRECISION, CALIBRATION_ERROR)


@dataclass(frozen=True)
class Level:
    """What is judged: all slices, or all studies.

    Attributes:
        labels: 0 or 1, of shape (num_rows, 6).
        patients: index of each row's patient, of shape (num_rows,).
        probabilities: by model, float64 of shape (num_rows, 6).
    """

    labels: np.ndarray
    patients: np.ndarray
    probabilities: dict[str, np.ndarray]


def evaluate_predictions(
    predictions: Predictions, priors: dict[str, float] | None, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Judges all models; see the module's docstring.

    Args:
        predictions: of at least one slice.
        priors: the label priors by subtype; None leaves the model `prior` out.
        bootstrap: how to make intervals.

    Returns:
        The report's entries from `num_patients` on.
    """
    slices, temperatures = slice_level(predictions, priors)
    studies = predictions.study_instance_uids
    levels = {SLICE: slices, STUDY: study_level(slices, studies)}
    num_patients = int(slices.patients.max()) + 1
    weights = bootstrap.weights(num_patients)
    models: dict[str, dict[str, Any]] = {name: {} for name in slices.probabilities}
    comparisons = {}
    for name, level in levels.items():
        losses = {}
        for model in models:
            judged = _judge(level, model, weights, bootstrap)
            models[model][name], losses[model] = judged
        comparisons[name] = _compare(losses, bootstrap)
    return {
        "num_patients": num_patients,
        "num_studies": len(levels[STUDY].labels),
        "num_slices": len(slices.labels),
        "positives": {name: _positives(level.labels) for name, level in levels.items()},
        "bootstrap": {**vars(bootstrap), "unit": "patient"},
        "bin_edges": calibration.BIN_EDGES.tolist(),
        **temperatures,
        "models": models,
        "comparisons": comparisons,
    }


def slice_level(
    predictions: Predictions, priors: dict[str, float] | None
) -> tuple[Level, dict[str, Any]]:
    """All models' probabilities of all slices, and the report's entries on temperatures."""
    labels = np.asarray(predictions.labels, np.float64)
    half = calibration.halves(predictions.patient_ids.tolist())
    trained = {BASE: predictions.base, LSTM: predictions.lstm}
    given = {name: values for name, values in trained.items() if values is not None}
    probabilities = dict(given)
    if priors is not None:
        row = np.array([priors[name] for name in schema.SUBTYPES])
        probabilities[PRIOR] = np.broadcast_to(row, labels.shape)
    used = {}
    for name, values in given.items():
        tempered, used[name] = calibration.temper_across(labels, values, half)
        probabilities[{BASE: BASE_CALIBRATED, LSTM: LSTM_CALIBRATED}[name]] = tempered
    ordered = {name: probabilities[name] for name in MODELS if name in probabilities}
    _, patients = np.unique(predictions.patient_ids, return_inverse=True)
    return Level(labels, patients, ordered), {
        "temperature": {n: calibration.fit_temperature(labels, v) for n, v in given.items()},
        "temperature_halves": {name: list(pair) for name, pair in used.items()},
    }


def study_level(slices: Level, study_instance_uids: np.ndarray) -> Level:
    """Studies: label and probability are the largest of the slices'.

    Args:
        slices: the level of slices.
        study_instance_uids: of each slice.
    """
    # A UID is of one patient; in an archive where it is not, patients stay apart.
    _, uids = np.unique(study_instance_uids, return_inverse=True)
    keys = slices.patients.astype(np.int64) * (int(uids.max()) + 1) + uids
    order = np.argsort(keys, kind="stable")
    _, starts = np.unique(keys[order], return_index=True)

    def largest(values: np.ndarray) -> np.ndarray:
        return np.maximum.reduceat(values[order], starts)

    return Level(
        largest(slices.labels),
        slices.patients[order][starts],
        {name: largest(values) for name, values in slices.probabilities.items()},
    )


def _judge(
    level: Level, model: str, weights: np.ndarray, bootstrap: Bootstrap
) -> tuple[dict[str, Any], np.ndarray]:
    """A model's figures, and its weighted log loss under each row of weights."""
    labels, patients, num_patients = level.labels, level.patients, weights.shape[1]
    probabilities = level.probabilities[model]
    # Sums over patients are matrix products, which are fast for floats alone.
    factors = weights.astype(np.float64)
    sizes = factors @ np.bincount(patients, minlength=num_patients)
    sums = patient_sums(metrics.slice_losses(labels, probabilities), patients, num_patients)
    losses = factors @ sums / sizes[:, np.newaxis]
    weighted = np.average(losses, axis=1, weights=SUBTYPE_WEIGHTS)
    subtypes = {}
    for column, name in enumerate(schema.SUBTYPES):
        label, probability = labels[:, column], probabilities[:, column]
        roc_auc, average_precision = Ranking(label, probability, patients).judge_all(weights)
        gaps = calibration.calibration_gaps(label, probability, patients, num_patients)
        values = {
            LOG_LOSS: losses[:, column],
            ROC_AUC: roc_auc,
            AVERAGE_PRECISION: average_precision,
            CALIBRATION_ERROR: np.abs(factors @ gaps).sum(1) / sizes,
        }
        subtypes[name] = {
            **{metric: bootstrap.estimate(value) for metric, value in values.items()},
            "reliability": _reliability(label, probability),
        }
    return {WEIGHTED: bootstrap.estimate(weighted), "subtypes": subtypes}, weighted


def _compare(losses: dict[str, np.ndarray], bootstrap: Bootstrap) -> dict[str, Any]:
    """Ratio and difference of weighted log losses, resample by resample."""
    return {
        f"{better}/{than}": {
            "ratio": bootstrap.estimate(losses[better] / losses[than]),
            "difference": bootstrap.estimate(losses[better] - losses[than]),
        }
        for better, than in COMPARED
        if better in losses and than in losses
    }


def _reliability(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, list[Any]]:
    bins = calibration.reliability(labels, probabilities)

    def listed(values: np.ndarray) -> list[float | None]:
        return [None if np.isnan(value) else float(value) for value in values]

    return {
        "count": bins.count.tolist(),
        "mean_probability": listed(bins.mean_probability),
        "positive_rate": listed(bins.positive_rate),
    }


def _positives(labels: np.ndarray) -> dict[str, int]:
    return dict(zip(schema.SUBTYPES, labels.sum(0).astype(int).tolist(), strict=True))
