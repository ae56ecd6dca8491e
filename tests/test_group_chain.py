"""A group of base models from examples to a prediction CSV, each stage reading the one before."""

import csv
import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_data import CONFIG, GROUP_ID, LSTM_ID, make_group

from beam_pipelines import build_examples, build_sequences, extract_embeddings, predict
from beam_pipelines.layout import DataLayout
from beam_pipelines.schema import SUBTYPES
from beam_pipelines.shards import read_manifest
from beam_pipelines.slice_references import read_references
from trainer import experiment, registry, train_sequence

FOLDS = 2
SETTINGS = [
    "--image_size=40",
    "--image_format=png",
    "--channels=windows",
    "--val_ratio=0.2",
    "--slices_per_shard=2",
]


@pytest.fixture(scope="module")
def finished(archive: Path, described: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that went through every stage with a group, by its id alone."""
    from trainer.base_model import build_base_model
    from trainer.model_files import save_model

    root = Path(shutil.copytree(described, tmp_path_factory.mktemp("chain") / "data"))
    data_dir = ["--data_dir", str(root)]
    build_examples.run(["--archive", str(archive), *data_dir, *SETTINGS])
    layout = DataLayout(str(root))
    fingerprints = {
        split: read_manifest(layout.examples(split), "")["fingerprint"]
        for split in ("train", "validation")
    }
    for member in make_group(root, FOLDS, data_fingerprints=fingerprints):
        save_model(build_base_model(CONFIG.base, image_size=40), member.model_file)
    extract_embeddings.run([*data_dir, "--model_id", GROUP_ID])
    build_sequences.run([*data_dir, "--model_id", GROUP_ID, "--max_to_keep", "4"])
    sequence = dataclasses.replace(CONFIG.sequence, batch_size=2, num_epochs=1, cell="gru")
    config = dataclasses.replace(CONFIG, sequence=sequence)
    train_sequence.train_sequence(str(root), config, GROUP_ID, LSTM_ID)
    predict.run([*data_dir, "--model_id", LSTM_ID])
    return root


def submission(path: Path) -> dict[str, float]:
    with path.open(newline="") as file:
        return {row["ID"]: float(row["Label"]) for row in csv.DictReader(file)}


def test_every_expected_slice_is_predicted_once(finished: Path) -> None:
    references = read_references(DataLayout(str(finished)), "test")
    expected = {f"{r.image_id}_{subtype}" for r in references for subtype in SUBTYPES}
    found = submission(finished / "output2.csv")
    assert found.keys() == expected
    assert (finished / "output2.csv").read_text().count("\n") == 1 + len(expected)
    assert all(0 < value < 1 for value in found.values())


def test_the_sequence_model_says_what_it_is_made_of(finished: Path) -> None:
    found = registry.find_experiment(str(finished), experiment.LSTM)
    members = [experiment.fold_id(GROUP_ID, fold) for fold in range(FOLDS)]
    assert found.record()["base_model_ids"] == members
    assert registry.base_experiments_of(found) == registry.find_base_models(str(finished), GROUP_ID)
    assert found.config().base.folds == FOLDS


def test_the_group_scores_another_data_root_by_path(
    finished: Path, archive: Path, described: Path, tmp_path: Path
) -> None:
    """As README says it of a single model; the experiments stay where they are."""
    root = Path(shutil.copytree(described, tmp_path / "data"))
    data_dir = ["--data_dir", str(root)]
    build_examples.run(["--archive", str(archive), *data_dir, *SETTINGS])
    group = ["--model_id", f"{finished}/experiments/{GROUP_ID}", "--base_data", "test"]
    extract_embeddings.run([*data_dir, *group])
    build_sequences.run([*data_dir, *group, "--max_to_keep", "4"])
    found = registry.find_experiment(str(finished), experiment.LSTM)
    predict.run([*data_dir, "--model_id", found.folder])
    one, two = (submission(path / "output2.csv") for path in (finished, root))
    assert one.keys() == two.keys()
    assert np.allclose([one[key] for key in one], [two[key] for key in one], atol=1e-5)


def test_main_takes_the_group_as_the_only_base_model(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags: list[Any] = ["--model_id", LSTM_ID, "--cell_size", "3", "--num_layers", "1"]
    flags += ["--cell", "gru", "--batch_size", "2", "--num_epochs", "1", "--max_to_keep", "4"]
    monkeypatch.setattr(sys, "argv", ["train_sequence", "--data_dir", str(finished), *flags])
    train_sequence.main()
    assert "already trained with these settings" in capsys.readouterr().out
