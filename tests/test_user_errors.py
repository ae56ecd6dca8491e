"""What a user sees of an error: real commands, one line, exit code 2, nothing half-written."""

import subprocess
import sys
from pathlib import Path

from synthetic import archive_files, make_series, write_zip


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a main."""
    command = [sys.executable, "-m", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.returncode, found.stdout, found.stderr


def test_a_zip_that_is_no_zip(tmp_path: Path):
    path = tmp_path / "a.zip"
    path.write_text("no zip")
    data_dir = tmp_path / "data"
    flags = ("--archive", path, "--data_dir", data_dir)
    assert run("beam_pipelines.extract_metadata", *flags) == (
        2,
        "",
        f"error: --archive {path}: not a zip archive, or one that is cut short (no end-of-central-"
        "directory record in its 6 bytes); give a whole zip or a folder\n",
    )
    assert not data_dir.exists()


def test_too_many_bad_slices(tmp_path: Path):
    slices = make_series("p", 2)
    files = {**archive_files(slices), slices[0].name: b"no DICOM file"}
    archive = write_zip(tmp_path / "a.zip", files)
    data_dir = tmp_path / "data"
    flags = ("--archive", archive, "--data_dir", data_dir)
    assert run("beam_pipelines.extract_metadata", *flags) == (
        2,
        "",
        "error: extract_metadata: 1 of 2 slices are bad, more than --max_bad_fraction 0.01 allows; "
        f"see {data_dir}/quarantine/extract_metadata.csv, then mend the archive or allow more\n",
    )
    assert not list(data_dir.glob("*.csv"))
    assert not list(data_dir.rglob("*manifest.json"))


def test_an_unknown_model_id(tmp_path: Path):
    code, out, err = run("beam_pipelines.predict", "--data_dir", tmp_path, "--model_id", "17")
    assert (code, out) == (2, "")
    assert err == (
        f"error: {tmp_path}/experiments/lstm: no lstm experiment '17'; there are: none; give one "
        "of them or train it: python -m trainer.train_sequence\n"
    )
    assert list(tmp_path.iterdir()) == []
