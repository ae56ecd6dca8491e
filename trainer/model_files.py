"""Keras model files, local or in a bucket, whole or not at all."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beam_pipelines import storage
from beam_pipelines.errors import require


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local path of a file: its own, or that of a copy while the block runs.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if storage.is_local(path):
        yield storage.filesystem(path)[1]
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.rsplit("/", 1)[-1]
        with storage.open_read(path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield str(copy)


def save_model(model: Any, path: str) -> None:
    """Writes a model without its optimizer to a `.keras` file."""
    import keras

    plain = keras.Model(model.input, model.output, name=model.name)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.keras"
        plain.save(written)
        with written.open("rb") as source, storage.open_atomic(path) as target:
            shutil.copyfileobj(source, target)


def load_model(path: str) -> Any:
    """Reads a model from a `.keras` file; it runs no code from the file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    import keras

    with local_copy(path) as local:
        if not Path(local).is_file():
            raise FileNotFoundError(path)
        return keras.saving.load_model(local, compile=False, safe_mode=True)


def export(model: Any, folder: str) -> None:
    """Writes a TensorFlow SavedModel, whole or not at all, to a local folder."""
    require(storage.is_local(folder), f"--export: received {folder}; it writes to local folders")
    final = Path(storage.filesystem(folder)[1])
    temporary = final.with_name(f"{final.name}.tmp-{secrets.token_hex(4)}")
    try:
        model.export(temporary, verbose=False)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
