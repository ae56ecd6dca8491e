"""The command lines of the stages, as a user would type them."""

import sys
from pathlib import Path


def program(module: str, *flags: object) -> list[str]:
    """`python -m module flags...` with this interpreter."""
    return [sys.executable, "-m", module, *map(str, flags)]


def threads_flags(num_threads: int | None) -> list[str]:
    """How build_examples is told its number of threads; None for its default, all cores."""
    return [] if num_threads is None else ["--build_threads", str(num_threads)]


def extract_metadata(archive: Path, data_dir: Path, *flags: object) -> list[str]:
    """Archive to metadata."""
    module = "beam_pipelines.extract_metadata"
    return program(module, "--archive", archive, "--data_dir", data_dir, *flags)


def process_labels(data_dir: Path, *flags: object) -> list[str]:
    """Kaggle's label file to tables."""
    return program("beam_pipelines.process_labels", "--data_dir", data_dir, *flags)


def build_examples(archive: Path, data_dir: Path, *flags: object) -> list[str]:
    """Archive, metadata and labels to example shards: whole slices in three windows.

    As the old scripts had them, and the bare loop has them.
    """
    module = "beam_pipelines.build_examples"
    shown = ("--channels", "windows", "--crop", "none")
    return program(module, "--archive", archive, "--data_dir", data_dir, *shown, *flags)


def extract_embeddings(data_dir: Path, model: Path, *flags: object) -> list[str]:
    """Examples to embeddings."""
    module = "beam_pipelines.extract_embeddings"
    return program(module, "--data_dir", data_dir, "--model_id", model, *flags)


def build_sequences(data_dir: Path, model_id: str, *flags: object) -> list[str]:
    """Embeddings to sequences."""
    module = "beam_pipelines.build_sequences"
    return program(module, "--data_dir", data_dir, "--model_id", model_id, *flags)


def predict(data_dir: Path, model_id: str, *flags: object) -> list[str]:
    """Sequences to a CSV."""
    module = "beam_pipelines.predict"
    return program(module, "--data_dir", data_dir, "--model_id", model_id, *flags)
