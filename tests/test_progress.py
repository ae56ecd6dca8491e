import os
import pty
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from synthetic import archive_files, make_dicom, make_series, write_zip

from beam_pipelines.progress import append_to, no_progress, watch

ROOT = Path(__file__).parent.parent


def test_nobody_watches_without_a_terminal(capsys: pytest.CaptureFixture[str]):
    with watch("stage", 10) as file:
        assert file is None
        assert append_to(file) is no_progress
    assert capsys.readouterr().err == ""


def test_what_many_workers_do_adds_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with watch("stage", 800) as file:
        assert file is not None

        def work() -> None:
            for _ in range(100):
                append_to(file)(1, 1)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("stage: 100%")
    assert "800/800" in last
    assert "400 quarantined" in last
    assert not Path(file).exists()


@pytest.mark.parametrize("flags", [[], ["--direct_num_workers=2"]], ids=["default", "two workers"])
def test_a_terminal_sees_how_far_a_stage_is(tmp_path: Path, flags: list[str]):
    """The whole stage in a terminal of its own."""
    files = {**archive_files(make_series("p", 5)), "stage_2_train/bad.dcm": b"bad"}
    files["stage_2_train/cut.dcm"] = make_dicom(omit=["PatientID"])
    archive = write_zip(tmp_path / "a.zip", files)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [sys.executable, "-m", "beam_pipelines.extract_metadata", "--archive", str(archive)]
    command += ["--data_dir", str(tmp_path / "data"), "--max_bad_fraction=1", *flags]
    with subprocess.Popen(command, stderr=theirs, cwd=ROOT) as process:
        os.close(theirs)
        shown = _read_all(ours)
    assert process.returncode == 0
    assert "extract_metadata: 100%" in shown
    assert "7/7" in shown
    assert "2 quarantined" in shown


def _read_all(terminal: int) -> str:
    data = b""
    while True:
        try:
            block = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side is closed.
            block = b""
        if not block:
            os.close(terminal)
            return data.decode()
        data += block
