import csv
import shutil
from pathlib import Path

import pytest
from synthetic import (
    ROOT,
    archive_files,
    label_csv,
    label_rows,
    make_slices,
    write_folder,
    write_zip,
)

from beam_pipelines.errors import UserError
from beam_pipelines.process_labels import run
from beam_pipelines.schema import SUBTYPES

SLICES = make_slices(2, 1)
ROWS = label_rows(SLICES)


def reshaped(data_dir: Path) -> dict[str, tuple[int, ...]]:
    with (data_dir / "reshaped_stage_2_train.csv").open(newline="") as file:
        return {r["image_id"]: tuple(int(r[s]) for s in SUBTYPES) for r in csv.DictReader(file)}


def processed(data_dir: Path) -> list[tuple[str, int]]:
    with (data_dir / "processed_stage_2_train.csv").open(newline="") as file:
        found = csv.DictReader(file)
        return [(f"{r['image_id']}_{r['subtype']}", int(r["label"])) for r in found]


def test_both_tables_hold_the_archives_labels(described: Path):
    slices = make_slices()
    assert reshaped(described) == {s.image_id: s.label for s in slices if s.label is not None}
    assert processed(described) == label_rows(slices)


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_labels_inside_a_zip_or_a_folder(tmp_path: Path, write):
    archive = write(tmp_path / "archive", archive_files(SLICES))
    run(["--data_dir", str(tmp_path), "--archive", str(archive)])
    assert processed(tmp_path) == ROWS


def test_the_named_file_comes_before_the_roots_and_the_archives(tmp_path: Path):
    named, of_root, of_archive = ([(name, v) for name, _ in ROWS] for v in (1, 0, 1))
    (tmp_path / "named.csv").write_bytes(label_csv(named))
    (tmp_path / "stage_2_train.csv").write_bytes(label_csv(of_root))
    files = {f"{ROOT}/stage_2_train.csv": label_csv(of_archive)}
    archive = write_zip(tmp_path / "a.zip", files)
    run(["--data_dir", str(tmp_path), "--archive", str(archive)])
    assert processed(tmp_path) == of_root
    run(["--data_dir", str(tmp_path), "--labels", str(tmp_path / "named.csv")])
    assert processed(tmp_path) == named


def test_what_is_said_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [(f"ID_{i}_{s}", int(s == "any" and i == 0)) for i in range(4) for s in SUBTYPES]
    (tmp_path / "stage_2_train.csv").write_bytes(label_csv([*rows, *rows[:6]]))
    run(["--data_dir", str(tmp_path)])
    assert capsys.readouterr().err == (
        "process_labels: 4 slices, 6 duplicate rows; epidural 0.00%, intraparenchymal 0.00%, "
        "intraventricular 0.00%, subarachnoid 0.00%, subdural 0.00%, any 25.00%\n"
    )


def test_missing_labels_are_a_user_error(tmp_path: Path):
    archive = write_zip(tmp_path / "a.zip", {"a.dcm": b""})
    data_dir = f"{tmp_path}/data"
    for flags, message in [
        (
            [],
            f"stage_2_train.csv: not found in {data_dir}/stage_2_train.csv; give --labels or "
            "--archive",
        ),
        (
            ["--archive", str(archive)],
            f"stage_2_train.csv: not found in {data_dir}/stage_2_train.csv nor in {archive}; give "
            "--labels",
        ),
        (
            ["--labels", "absent.csv"],
            "--labels absent.csv: no such file; give Kaggle's stage_2_train.csv",
        ),
    ]:
        with pytest.raises(UserError) as error:
            run(["--data_dir", data_dir, *flags])
        assert str(error.value) == message
    assert not Path(data_dir).exists()


def test_damaged_labels_of_an_archive_are_a_user_error(tmp_path: Path):
    data = bytearray(write_zip(tmp_path / "a.zip", archive_files(SLICES)).read_bytes())
    place = data.index(b"stage_2_train.csv") + 60
    data[place] ^= 0x55
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError) as error:
        run(["--data_dir", str(tmp_path), "--archive", str(tmp_path / "a.zip")])
    start = f"labels {tmp_path}/a.zip:{ROOT}/stage_2_train.csv: "
    assert str(error.value).startswith(start)
    assert "copy the archive again, or give --labels" in str(error.value)


def test_labels_that_contradict_each_other_leave_the_old_tables(described: Path, tmp_path: Path):
    data_dir = Path(shutil.copytree(described, tmp_path / "data"))
    before = {path.name: path.read_bytes() for path in data_dir.glob("*.csv")}
    (tmp_path / "wrong.csv").write_bytes(label_csv([*ROWS, (ROWS[0][0], 1 - ROWS[0][1])]))
    with pytest.raises(UserError, match=f"contradict each other: {ROWS[0][0]}; keep the right"):
        run(["--data_dir", str(data_dir), "--labels", str(tmp_path / "wrong.csv")])
    assert {path.name: path.read_bytes() for path in data_dir.glob("*.csv")} == before
