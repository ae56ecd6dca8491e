import csv
import dataclasses
import functools
import json
import pickle
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from embedding_data import (
    CONFIG,
    EMBEDDING_DIM,
    GROUP_ID,
    LSTM_ID,
    MODEL_ID,
    embedding_of,
    make_experiment,
    make_group,
    write_group_embeddings,
)
from embedding_data import write_embeddings as write
from synthetic import ROOT, archive_files, make_dicom, make_series, write_zip

from beam_pipelines import (
    build_examples,
    build_sequences,
    extract_metadata,
    process_labels,
    schema,
    tfrecord,
)
from beam_pipelines.errors import UserError
from beam_pipelines.layout import SPLITS, DataLayout
from beam_pipelines.predict import run, temperature_of
from beam_pipelines.predictions import PredictionBuilder, shards_to_score
from beam_pipelines.schema import SUBTYPES, Slice
from beam_pipelines.slice_features import SLICE_FEATURES
from beam_pipelines.submission import PublishPredictions, expected_image_ids

SETTINGS = [
    "--image_size=40",
    "--image_format=png",
    "--channels=windows",
    "--val_ratio=0.4",
    "--slices_per_shard=4",
]
NO_HEADER = "ID_noheader"


def items_of(data_dir: Path, split: str) -> list[list[Slice]]:
    found: dict[str, list[Slice]] = {}
    for path in sorted((data_dir / split).glob("*.tfrecord")):
        with path.open("rb") as file:
            for _, data in tfrecord.read_records(file, str(path)):
                item = schema.decode_slice(data)[0]
                found.setdefault(item.series_instance_uid, []).append(item)
    return list(found.values())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with sequences of made-up embeddings, and untrained models of both kinds.

    Two of the nine test slices are in quarantine: one has half its pixels, one no header.
    """
    from trainer.base_model import build_base_model
    from trainer.experiment import BASE, LSTM
    from trainer.model_files import save_model
    from trainer.sequence_model import build_sequence_model

    root = tmp_path_factory.mktemp("predict")
    test = make_series("x1", 6, subset="test") + make_series("x2", 2, subset="test")
    slices = [s for i in range(4) for s in make_series(f"ID_train{i}", 3)] + test
    files = archive_files(slices)
    files[test[2].name] = test[2].data[:-500]
    files[f"{ROOT}/stage_2_test/{NO_HEADER}.dcm"] = make_dicom(omit=["PatientID"])
    archive = str(write_zip(root / "a.zip", files))
    data_dir = root / "data"
    flags = ["--archive", archive, "--data_dir", str(data_dir)]
    extract_metadata.run([*flags, "--max_bad_fraction=0.1"])
    process_labels.run(flags)
    build_examples.run([*flags, *SETTINGS, "--max_bad_fraction=0.1"])
    for split in SPLITS:
        write(data_dir, split, items_of(data_dir, split))
    base = make_experiment(data_dir, BASE)
    save_model(build_base_model(CONFIG.base, image_size=40), base.model_file)
    build_sequences.run(["--data_dir", str(data_dir), "--max_to_keep=4"])
    lstm = make_experiment(data_dir, LSTM, base_model_id=MODEL_ID)
    model = build_sequence_model(CONFIG.sequence, EMBEDDING_DIM, len(SLICE_FEATURES))
    save_model(model, lstm.model_file)
    return data_dir


def ids_of_test_slices() -> list[str]:
    """The image ids of the metadata of the test part."""
    return [s.image_id for p, n in (("x1", 6), ("x2", 2)) for s in make_series(p, n, subset="test")]


def rows(path: Path) -> dict[str, list[float]]:
    """Six probabilities by image id, after checking the form of the file."""
    with path.open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["ID", "Label"]
    ids = [name.rsplit("_", 1)[0] for name, _ in found]
    assert [name for name, _ in found] == [f"{i}_{s}" for i in ids[::6] for s in SUBTYPES]
    values = np.array([float(value) for _, value in found]).reshape(-1, 6)
    assert ((values > 0) & (values < 1)).all()
    assert len(set(ids)) == len(values)
    return {image_id: row.tolist() for image_id, row in zip(ids[::6], values, strict=True)}


def expected_ids(data_dir: Path) -> tuple[list[str], list[str]]:
    """Image ids with a prediction, and those in quarantine."""
    ids = ids_of_test_slices()
    return [*ids[:2], *ids[3:]], [ids[2], NO_HEADER]


def priors(data_dir: Path) -> list[float]:
    (path, *_) = data_dir.glob("experiments/*/transform/label_priors.json")
    return [json.loads(path.read_text())[name] for name in SUBTYPES]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def test_lstm_scores_every_slice_once(data_dir: Path, capsys: pytest.CaptureFixture[str]):
    """An untrained sequence model hands on the base model's logits: they are the expectation."""
    run(["--data_dir", str(data_dir)])
    found = rows(data_dir / "output2.csv")
    scored, quarantined = expected_ids(data_dir)
    assert list(found) == scored + quarantined
    for image_id in scored:
        expected = sigmoid(embedding_of(image_id)[1])
        np.testing.assert_allclose(found[image_id], expected, atol=1e-6)
    for image_id in quarantined:
        np.testing.assert_allclose(found[image_id], priors(data_dir), atol=2e-6)
    said = capsys.readouterr().err.splitlines()
    assert said[-3:] == [
        "predict: 7 slices in, 7 written, 0 quarantined",
        "predict: 2 quarantined slices have the label priors",
        f"predict: wrote {data_dir}/output2.csv",
    ]
    before = (data_dir / "output2.csv").read_bytes()
    run(["--data_dir", str(data_dir), "--model_id", LSTM_ID])
    assert (data_dir / "output2.csv").read_bytes() == before
    assert "shards were there already" in capsys.readouterr().err


def test_progress_is_told_of_every_slice_once(data_dir: Path, tmp_path: Path):
    """A series of five slices has two windows of four; of two members one is told of."""
    (experiment,) = data_dir.glob(f"experiments/lstm/{LSTM_ID}*")
    folder = data_dir / f"sequences/{MODEL_ID}/test"
    folders = (str(folder), str(folder))
    builder = PredictionBuilder(
        str(data_dir), "lstm", (str(experiment),), folders, "f", 1.0, str(tmp_path / "parts")
    )
    builder.setup()
    calls: list[tuple[int, int]] = []
    for task in shards_to_score(folders, ""):
        builder.build(task, lambda *counts: calls.append(counts))
    assert np.sum(calls, axis=0).tolist() == [7, 0]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["num_sequences"] > manifest["num_series"]


def test_base_scores_every_slice_once_into_a_bucket(data_dir: Path):
    from trainer.model_files import load_model

    memory = fsspec.filesystem("memory")
    flags = ["--model_type", "base", "--output", "memory://bucket/out/base.csv"]
    try:
        run(["--data_dir", str(data_dir), *flags])
        path = data_dir.parent / "base.csv"
        path.write_bytes(memory.cat("/bucket/out/base.csv"))
    finally:
        memory.rm("/bucket", recursive=True)
    found = rows(path)
    scored, quarantined = expected_ids(data_dir)
    assert list(found) == scored + quarantined
    (model_file,) = data_dir.glob("experiments/base1*/model.keras")
    model = load_model(str(model_file))
    images = {}
    for shard in (data_dir / "test").glob("*.tfrecord"):
        with shard.open("rb") as file:
            for _, data in tfrecord.read_records(file, str(shard)):
                parsed = schema.parse_example(data, 40)
                images[parsed["image_id"].numpy().decode()] = parsed["image"].numpy()
    logits = model.predict(np.stack([images[i] for i in scored]), verbose=0)
    np.testing.assert_allclose([found[i] for i in scored], sigmoid(logits), atol=1e-5)


MEMBERS = [f"{GROUP_ID}-fold{fold}" for fold in range(3)]


@pytest.fixture(scope="module")
def group(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same slices, sequences of a group of three, and untrained models of both kinds."""
    from trainer.base_model import build_base_model
    from trainer.experiment import LSTM
    from trainer.model_files import save_model
    from trainer.sequence_model import build_sequence_model

    root = tmp_path_factory.mktemp("predict") / "data"
    left_out = shutil.ignore_patterns("experiments", "embeddings", "sequences", "predictions")
    shutil.copytree(data_dir, root, ignore=left_out)
    for split in SPLITS:
        write_group_embeddings(root, split, items_of(root, split), 3)
    for member in make_group(root, 3):
        save_model(build_base_model(CONFIG.base, image_size=40), member.model_file)
    build_sequences.run(["--data_dir", str(root), "--max_to_keep=4"])
    lstm = make_experiment(root, LSTM, base_model_id=GROUP_ID, base_model_ids=MEMBERS)
    model = build_sequence_model(CONFIG.sequence, EMBEDDING_DIM, len(SLICE_FEATURES), 3)
    save_model(model, lstm.model_file)
    return root


def means_of_members(image_ids: list[str]) -> np.ndarray:
    """Mean of the base models' probabilities, which an untrained sequence model hands on."""
    return np.array(
        [np.mean([sigmoid(embedding_of(i, m)[1]) for m in MEMBERS], axis=0) for i in image_ids]
    )


def test_lstm_of_a_group_is_the_mean_over_members(group: Path):
    run(["--data_dir", str(group)])
    found = rows(group / "output2.csv")
    scored, quarantined = expected_ids(group)
    assert list(found) == scored + quarantined
    np.testing.assert_allclose([found[i] for i in scored], means_of_members(scored), atol=1e-6)
    for image_id in quarantined:
        np.testing.assert_allclose(found[image_id], priors(group), atol=2e-6)


def test_each_member_is_scored_with_its_own_fold(group: Path, tmp_path: Path):
    """A model whose folds differ: each member's sequences must come with their own number."""
    from trainer.experiment import LSTM
    from trainer.inference import load_sequence
    from trainer.model_files import load_model, save_model
    from trainer.registry import find_experiment

    root = Path(shutil.copytree(group, tmp_path / "data"))
    experiment = find_experiment(str(root), LSTM)
    model = load_model(experiment.model_file)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    save_model(model, experiment.model_file)
    run(["--data_dir", str(root)])
    scorer, members = load_sequence(experiment), []
    for fold, member in enumerate(MEMBERS):
        by_id: dict[str, list[np.ndarray]] = {}
        for path in (root / "sequences" / member / "test").glob("*.tfrecord"):
            for sequence in map(schema.decode_sequence, tfrecord.read_file(str(path))):
                names = ("embeddings", "logits", "slice_features", "mask")
                arrays = {name: getattr(sequence, name)[np.newaxis] for name in names}
                logits = scorer({**arrays, "fold": np.array([fold])})[0]
                for image_id, row in zip(sequence.image_ids, logits, strict=True):
                    by_id.setdefault(image_id, []).append(sigmoid(row))
        members.append({image_id: np.mean(found, axis=0) for image_id, found in by_id.items()})
    scored, _ = expected_ids(root)
    expected = np.array([np.mean([member[i] for member in members], axis=0) for i in scored])
    found = rows(root / "output2.csv")
    np.testing.assert_allclose([found[i] for i in scored], expected, atol=2e-6)
    assert not np.allclose(members[0][scored[0]], members[1][scored[0]], atol=1e-3)


def test_base_models_of_a_group_are_averaged(group: Path, tmp_path: Path):
    found = []
    for model_id in (GROUP_ID, *MEMBERS):
        output = tmp_path / f"{model_id}.csv"
        flags = ["--model_type", "base", "--model_id", model_id, "--output", str(output)]
        run(["--data_dir", str(group), *flags])
        found.append(rows(output))
    scored, _ = expected_ids(group)
    mean, *members = (np.array([part[i] for i in scored]) for part in found)
    np.testing.assert_allclose(mean, np.mean(members, axis=0), atol=2e-9)
    assert not np.allclose(members[0], members[1], atol=1e-4)
    assert (group / "predictions" / f"base-{GROUP_ID}").is_dir()


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    return sigmoid(np.log(probabilities / (1 - probabilities)) / temperature)


def test_probabilities_are_tempered_after_the_mean(
    group: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from trainer.experiment import LSTM
    from trainer.registry import find_experiment

    root = Path(shutil.copytree(group, tmp_path / "data"))
    find_experiment(str(root), LSTM).update(temperature=1.5)
    scored, quarantined = expected_ids(root)
    means = means_of_members(scored)
    for flags, expected in ((["--calibrate"], tempered(means, 1.5)), ([], means)):
        run(["--data_dir", str(root), *flags])
        said = capsys.readouterr().err
        assert ("tempered with T = 1.5000" in said) == bool(flags)
        found = rows(root / "output2.csv")
        np.testing.assert_allclose([found[i] for i in scored], expected, atol=1e-6)
        np.testing.assert_allclose(found[quarantined[0]], priors(root), atol=2e-6)


def test_one_model_is_tempered_and_the_mean_of_several_is_not(group: Path, tmp_path: Path):
    from trainer.registry import find_base_models

    root = Path(shutil.copytree(group, tmp_path / "data"))
    members = find_base_models(str(root), GROUP_ID)
    for member in members:
        member.update(temperature=2.0)
    assert temperature_of(members) == 1
    scored, _ = expected_ids(root)
    flags = ["--data_dir", str(root), "--model_type", "base", "--model_id", MEMBERS[0]]
    found = []
    for flag in ("--calibrate", "--no-calibrate"):
        run([*flags, flag])
        part = rows(root / "output2.csv")
        found.append(np.array([part[i] for i in scored]))
    np.testing.assert_allclose(found[0], tempered(found[1], 2.0), atol=1e-6)


def test_a_member_without_test_sequences_is_named(group: Path, tmp_path: Path):
    root = Path(shutil.copytree(group, tmp_path / "data"))
    shutil.rmtree(root / "sequences" / MEMBERS[1])
    with pytest.raises(
        UserError, match=r"fold1/test: no manifest\.json, .*build_sequences --model_id group1$"
    ):
        run(["--data_dir", str(root)])


def test_members_with_other_slices_are_refused(group: Path, tmp_path: Path):
    """As many slices, but another patient's; and another number of slices."""
    root = Path(shutil.copytree(group, tmp_path / "data"))
    (root / "output2.csv").unlink(missing_ok=True)
    flags = ["--data_dir", str(root), "--max_to_keep=4", "--base_data=test", "--model_id"]
    first, *others = items_of(root, "test")
    renamed = [
        dataclasses.replace(item, series_instance_uid="new", image_id=f"{item.image_id}-new")
        for item in first
    ]
    for series, message in (
        (
            [renamed, *others],
            "predict shard-.*: the members of the group have not seen the same sl",
        ),
        (others, "fold1/test: not the slices of .*fold0/test; run extract_embeddings and then"),
    ):
        write(root, "test", series, model_id=MEMBERS[1])
        build_sequences.run([*flags, MEMBERS[1]])
        with pytest.raises(UserError, match=message):
            run(["--data_dir", str(root)])
    assert not (root / "output2.csv").exists()


def test_what_publishes_is_small(data_dir: Path):
    """A job's payload is limited; the ids of the whole test part are 3 MB."""
    expected = functools.partial(expected_image_ids, DataLayout(str(data_dir)))
    publish = PublishPredictions("parts", "out.csv", expected, (0.1,) * 6)
    assert len(pickle.dumps(publish)) < 1000


def test_slices_without_a_prediction_stop_it(data_dir: Path, tmp_path: Path):
    copy = Path(shutil.copytree(data_dir, tmp_path / "data"))
    (copy / "output2.csv").unlink(missing_ok=True)
    path = copy / "test_metadata.csv"
    text = path.read_text()
    path.write_text(text + text.splitlines()[-1].replace("ID_", "ID_new") + "\n")
    with pytest.raises(UserError, match=r"output2\.csv: not written: 1 of 8 slices of the metad"):
        run(["--data_dir", str(copy)])
    assert not (copy / "output2.csv").exists()


def test_what_is_missing_is_a_user_error(data_dir: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"0 lstm experiments: none; train one first: python -m"):
        run(["--data_dir", str(tmp_path)])
    with pytest.raises(UserError, match=r"no lstm experiment 'x'; there are: lstm1; give one of"):
        run(["--data_dir", str(data_dir), "--model_id", "x"])
    with pytest.raises(UserError, match=r"no base experiment 'lstm1'; there are: base1; give one"):
        run(["--data_dir", str(data_dir), "--model_id", "lstm1", "--model_type", "base"])
    with pytest.raises(UserError, match="invalid choice: 'cnn'"):
        run(["--data_dir", str(data_dir), "--model_type", "cnn"])
