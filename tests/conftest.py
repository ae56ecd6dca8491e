"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Cores are shared and first calls import: a slow example is no failure. Same examples every run.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with tiny examples and sequences; tests must not write into it."""
    import trainer_data

    data_dir = tmp_path_factory.mktemp("tiny_data")
    trainer_data.write_data(data_dir)
    return data_dir


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a trained base model `base1` and sequence model `lstm1`."""
    import trainer_data

    data_dir = tmp_path_factory.mktemp("trained")
    trainer_data.write_data(data_dir)
    trainer_data.train_both(data_dir)
    return data_dir


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of `synthetic.make_slices`, in the real layout."""
    import synthetic

    path = tmp_path_factory.mktemp("archive") / "archive.zip"
    return synthetic.write_zip(path, synthetic.archive_files(synthetic.make_slices()))


@pytest.fixture(scope="session")
def described(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the archive's metadata and labels; tests must not write into it."""
    from beam_pipelines import extract_metadata, process_labels

    data_dir = tmp_path_factory.mktemp("described")
    for stage in (extract_metadata, process_labels):
        stage.run(["--archive", str(archive), "--data_dir", str(data_dir)])
    return data_dir
