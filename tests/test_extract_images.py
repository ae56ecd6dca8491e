import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic import archive_files, make_series, make_slices, write_zip

from beam_pipelines import extract_metadata
from beam_pipelines.errors import UserError
from beam_pipelines.extract_images import ImageBuilder, run
from beam_pipelines.layout import DataLayout
from beam_pipelines.pixels import decode_hounsfield
from beam_pipelines.quarantine import read_quarantine
from beam_pipelines.windowing import window_table
from configs import Window
from configs.sections import DEFAULT_WINDOWS


@pytest.fixture
def data_dir(described: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(described, tmp_path / "data"))


def extract(archive: Path, data_dir: Path, *flags: str) -> None:
    run(["--archive", str(archive), "--data_dir", str(data_dir), *flags])


def windowed(data: bytes, *windows: Window) -> np.ndarray:
    bits = decode_hounsfield(data).view(np.uint16)
    return np.concatenate([window_table(window)[bits] for window in windows], axis=1)


def test_every_slice_in_the_brain_window(archive: Path, data_dir: Path):
    extract(archive, data_dir)
    slices = {s.image_id: s.data for s in make_slices()}
    assert {p.name for p in (data_dir / "images").iterdir()} == {f"{i}.png" for i in slices}
    for image_id, data in slices.items():
        image = cv2.imread(str(data_dir / "images" / f"{image_id}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, windowed(data, DEFAULT_WINDOWS[0]))


def test_chosen_slices_with_windows_side_by_side(archive: Path, data_dir: Path, tmp_path: Path):
    chosen = [make_slices()[i] for i in (0, 9)]
    output = tmp_path / "out"
    flags = ["--image_ids", *(s.image_id for s in chosen), "--window", "bone", "brain", "subdural"]
    extract(archive, data_dir, *flags, "--output_dir", str(output))
    assert {p.name for p in output.iterdir()} == {f"{s.image_id}.png" for s in chosen}
    brain, subdural, bone = DEFAULT_WINDOWS
    for item in chosen:
        image = cv2.imread(str(output / f"{item.image_id}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, windowed(item.data, bone, brain, subdural))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ["--series_instance_uid", "ID_ID_train0-series2"],
            {s.image_id for s in make_series("ID_train0", 3, study=2)},
        ),
        (["--subset", "test"], {s.image_id for s in make_slices() if s.subset == "test"}),
        (["--subset", "train", "--num_images", "3"], {s.image_id for s in make_slices()[:3]}),
    ],
    ids=["series", "subset", "number"],
)
def test_choices(archive: Path, data_dir: Path, flags: list[str], expected: set[str]):
    extract(archive, data_dir, *flags, "--image_format", "jpeg")
    assert {path.name for path in (data_dir / "images").iterdir()} == {f"{i}.jpg" for i in expected}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--image_ids", "ID_b", "ID_a", "--subset", "test"],
            "--image_ids: 2 are not in the metadata of test: ID_a, ID_b",
        ),
        (["--series_instance_uid", "ID_x"], "no slice is wanted by all the flags that were given"),
        (["--num_images", "0"], "argument --num_images: received '0'; give a number from 1"),
        (["--num_images", "-1"], "argument --num_images: received '-1'; give a number from 1"),
        (["--window", "lung"], "argument --window: invalid choice: 'lung'"),
    ],
)
def test_wrong_choices_are_user_errors(
    archive: Path, data_dir: Path, flags: list[str], message: str
):
    with pytest.raises(UserError) as error:
        extract(archive, data_dir, *flags)
    assert message in str(error.value)
    assert not (data_dir / "images").exists()


def test_bad_slices_are_quarantined(tmp_path: Path):
    slices = make_series("p", 3)
    files = {**archive_files(slices), slices[1].name: slices[1].data[:-1]}
    archive = write_zip(tmp_path / "a.zip", files)
    extract_metadata.run(["--archive", str(archive), "--data_dir", str(tmp_path)])
    extract(archive, tmp_path, "--max_bad_fraction=0.5")
    (bad,) = read_quarantine(DataLayout(str(tmp_path)), "extract_images")
    assert (bad.image_id, bad.reason) == (
        slices[1].image_id,
        "pixel data is cut short: 2559 of 2560 bytes",
    )
    names = {path.name for path in (tmp_path / "images").iterdir()}
    assert names == {f"{s.image_id}.png" for s in (slices[0], slices[2])}


@pytest.mark.parametrize(
    ("image_id", "name"),
    [("1.2.3", "1.2.3"), ("../../x", "_.._x"), ("a/b", "a_b"), (".hidden", "hidden")],
)
def test_a_file_name_stays_in_its_folder(image_id: str, name: str):
    builder = ImageBuilder("a.zip", "out", DEFAULT_WINDOWS, "png")
    assert builder._path(image_id) == f"out/{name}.png"
