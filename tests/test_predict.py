import csv
import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from embedding_data import CONFIG, EMBEDDING_DIM, LSTM_ID, MODEL_ID, embedding_of, make_experiment
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
from beam_pipelines.embeddings import ExampleShard
from beam_pipelines.errors import UserError
from beam_pipelines.layout import SPLITS
from beam_pipelines.predict import run
from beam_pipelines.predictions import PredictionBuilder
from beam_pipelines.schema import SUBTYPES, Slice
from beam_pipelines.slice_features import SLICE_FEATURES

SETTINGS = ["--image_size=40", "--image_format=png", "--val_ratio=0.4", "--slices_per_shard=4"]
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
    (path,) = data_dir.glob("experiments/*/transform/label_priors.json")
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
    """A series of five slices has two windows of four."""
    (experiment,) = data_dir.glob(f"experiments/lstm/{LSTM_ID}*")
    builder = PredictionBuilder(
        str(data_dir), "lstm", str(experiment), MODEL_ID, "f", str(tmp_path / "parts")
    )
    builder.setup()
    manifest = json.loads((data_dir / f"sequences/{MODEL_ID}/test/manifest.json").read_text())
    calls: list[tuple[int, int]] = []
    for receipt in manifest["shards"]:
        task = ExampleShard("test", receipt)
        builder.build(task, lambda *counts: calls.append(counts))
    assert np.sum(calls, axis=0).tolist() == [7, 0]
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
