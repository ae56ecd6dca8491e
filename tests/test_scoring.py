"""Which shards are read, and how members and windows are averaged."""

import dataclasses
from pathlib import Path

import embedding_data
import numpy as np
import pytest
import trainer_data

from beam_pipelines.errors import UserError
from trainer import experiment, judging, metrics, registry, scoring, shard_files
from trainer.scoring import Predictions

BASE_ID, LSTM_ID = trainer_data.BASE_MODEL_ID, trainer_data.SEQUENCE_MODEL_ID


def _predictions(ids: list[str], base: list[float], lstm: list[float] | None) -> Predictions:
    def columns(values: list[float]) -> np.ndarray:
        return np.array(values)[:, None] * np.ones(6)

    return Predictions(
        np.array(ids),
        np.array([f"patient of {name}" for name in ids]),
        np.array([f"study of {name}" for name in ids]),
        columns([name in ("a", "c") for name in ids]),
        columns(base),
        None if lstm is None else columns(lstm),
    )


def test_members_are_averaged_by_image() -> None:
    first = _predictions(["b", "a", "c"], [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    second = _predictions(["c", "b", "a"], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0])
    found = scoring.mean_of_members([first, second], ["x", "y"])
    assert found.image_ids.tolist() == ["b", "a", "c"]
    assert found.base[:, 0] == pytest.approx([0.2, 0.2, 0.4])
    assert found.lstm is not None
    assert found.lstm[:, 5] == pytest.approx([0.3, 0.3, 0.8])
    assert np.array_equal(found.labels, first.labels)
    assert np.array_equal(found.patient_ids, first.patient_ids)
    alone = scoring.mean_of_members([dataclasses.replace(first, lstm=None)], ["x"])
    assert alone.lstm is None
    assert np.array_equal(alone.base, first.base)


@pytest.mark.parametrize("ids", [["b", "a"], ["b", "a", "d"], ["b", "a", "c", "d"]])
def test_members_of_other_slices_are_refused(ids: list[str]) -> None:
    first = _predictions(["b", "a", "c"], [0.1, 0.2, 0.3], None)
    second = _predictions(ids, [0.5] * len(ids), None)
    with pytest.raises(UserError, match="y: not the labelled slices of x; make both again"):
        scoring.mean_of_members([first, second], ["x", "y"])


def test_members_with_other_labels_are_refused() -> None:
    first = _predictions(["b", "a", "c"], [0.1, 0.2, 0.3], None)
    second = dataclasses.replace(first, labels=1 - first.labels)
    with pytest.raises(UserError, match="y: not the labelled slices of x"):
        scoring.mean_of_members([first, second], ["x", "y"])


def test_windows_that_overlap_are_averaged(tmp_path: Path) -> None:
    study = trainer_data.make_study(np.random.default_rng(0), "p", 6, 32)
    trainer_data.write_sequences(tmp_path, "validation", [study], max_to_keep=4)
    folder = shard_files.read_folder(str(tmp_path / "sequences" / BASE_ID / "validation"), "x")
    assert folder.num_sequences == 2
    slices = judging.SequenceSlices(folder)
    # The first window says 0.2 of everything, the second 0.6; slices 2 and 3 are in both.
    probabilities = np.repeat([[[0.2]], [[0.6]]], 4, axis=1) * np.ones(6)
    labels, means = slices.by_image(probabilities)
    assert np.array_equal(labels, study.labels)
    assert means[:, 0] == pytest.approx([0.2, 0.2, 0.4, 0.4, 0.6, 0.6])
    assert slices.image_ids.tolist() == [item.image_id for item in study.slices]
    assert slices.patient_ids.tolist() == ["p"] * 6
    assert slices.study_instance_uids.tolist() == ["study-p"] * 6


def test_slices_without_labels_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    studies = [
        trainer_data.make_study(rng, name, 3, 32, labelled=name != "q") for name in ("p", "q", "r")
    ]
    trainer_data.write_sequences(tmp_path, "validation", studies, num_shards=1)
    folder = shard_files.read_folder(str(tmp_path / "sequences" / BASE_ID / "validation"), "x")
    slices = judging.SequenceSlices(folder)
    assert slices.patient_ids.tolist() == ["p"] * 3 + ["r"] * 3
    expected = np.concatenate([studies[0].labels, studies[2].labels])
    assert np.array_equal(slices.labels, expected)


def test_a_split_of_all_members(trained: Path) -> None:
    """A second member whose shards are in another order; the same model scores both."""
    found = registry.find_experiment(str(trained), experiment.LSTM, LSTM_ID)
    assert registry.base_model_ids(found) == [BASE_ID]
    folders = scoring.read_members(str(trained), found, "validation")
    assert [folder.num_slices for folder in folders] == [22]
    reversed_folder = dataclasses.replace(folders[0], paths=folders[0].paths[::-1])
    one = scoring.predict_split(found, folders)
    two = scoring.predict_split(found, [folders[0], reversed_folder])
    assert np.array_equal(one.image_ids, two.image_ids)
    assert one.lstm is not None and two.lstm is not None
    assert np.allclose(one.lstm, two.lstm, atol=1e-6)
    assert np.allclose(one.base, two.base)
    assert not np.allclose(one.lstm, one.base, atol=1e-2)
    studies = trainer_data.make_studies("validation")
    labels = {
        item.image_id: row
        for study in studies
        for item, row in zip(study.slices, study.labels, strict=True)
    }
    assert np.array_equal(one.labels, [labels[name] for name in one.image_ids])


def test_sequences_of_another_length_are_refused(trained: Path, tmp_path: Path) -> None:
    found = registry.find_experiment(str(trained), experiment.LSTM, LSTM_ID)
    trainer_data.write_sequences(
        tmp_path, "validation", trainer_data.make_studies("validation"), max_to_keep=4
    )
    folders = scoring.read_members(str(tmp_path), found, "validation")
    with pytest.raises(UserError, match=r"sequences of 4 slices, but .* was trained on 8; run"):
        scoring.predict_split(found, folders)


def test_a_base_model_is_judged_from_its_embeddings(tmp_path: Path) -> None:
    labelled = [embedding_data.make_items(f"p{number}", 5) for number in range(3)]
    series = [*labelled, embedding_data.make_items("q", 4, labelled=False)]
    embedding_data.write_embeddings(tmp_path, "validation", series)
    found = embedding_data.make_experiment(tmp_path, experiment.BASE)
    folders = scoring.read_members(str(tmp_path), found, "validation")
    predictions = scoring.predict_split(found, folders)
    assert predictions.lstm is None
    items = {item.image_id: item for group in labelled for item in group}
    assert sorted(predictions.image_ids) == sorted(items)
    for row, name in enumerate(predictions.image_ids):
        assert predictions.patient_ids[row] == items[name].patient_id
        assert predictions.study_instance_uids[row] == items[name].study_instance_uid
        assert tuple(predictions.labels[row]) == items[name].label
        logits = embedding_data.embedding_of(name)[1]
        assert predictions.base[row] == pytest.approx(metrics.sigmoid(logits))


def test_a_model_that_has_diverged_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(image_id: str, model_id: str) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(8), np.full(6, np.nan)

    monkeypatch.setattr(embedding_data, "embedding_of", diverged)
    series = [embedding_data.make_items("p", 3)]
    embedding_data.write_embeddings(tmp_path, "validation", series)
    found = embedding_data.make_experiment(tmp_path, experiment.BASE)
    folders = scoring.read_members(str(tmp_path), found, "validation")
    with pytest.raises(UserError, match=r"base1_\S+: probabilities that are no numbers"):
        scoring.predict_split(found, folders)


def test_missing_and_unlabelled_shards_are_named(tmp_path: Path) -> None:
    found = embedding_data.make_experiment(tmp_path, experiment.BASE)
    with pytest.raises(UserError, match=r"run python -m \S*extract_embeddings --model_id base1"):
        scoring.read_members(str(tmp_path), found, "validation")
    series = [embedding_data.make_items("q", 4, labelled=False)]
    embedding_data.write_embeddings(tmp_path, "validation", series)
    with pytest.raises(UserError, match="4 slices, none of them labelled"):
        scoring.read_members(str(tmp_path), found, "validation")
    lstm = embedding_data.make_experiment(tmp_path, experiment.LSTM, base_model_id="base1")
    with pytest.raises(UserError, match=r"run python -m \S*build_sequences --model_id base1"):
        scoring.read_members(str(tmp_path), lstm, "validation")


def test_members_are_listed_by_the_experiment(tmp_path: Path) -> None:
    ids = ["base1-0", "base1-1"]
    found = embedding_data.make_experiment(
        tmp_path, experiment.LSTM, base_model_id="base1", base_model_ids=ids
    )
    assert registry.base_model_ids(found) == ids
    alone = embedding_data.make_experiment(tmp_path, experiment.BASE)
    assert registry.base_model_ids(alone) == ["base1"]
