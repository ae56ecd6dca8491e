import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from synthetic import (
    ROOT,
    SyntheticSlice,
    archive_files,
    make_dicom,
    make_series,
    make_slices,
    write_folder,
    write_zip,
)

from beam_pipelines import extract_metadata, images, process_labels, schema, tfrecord
from beam_pipelines.build_examples import num_shards, run
from beam_pipelines.errors import UserError
from beam_pipelines.layout import SPLITS, DataLayout
from beam_pipelines.pixels import decode_hounsfield, read_stored
from beam_pipelines.quarantine import read_quarantine
from beam_pipelines.rendering import Renderer
from beam_pipelines.splits import split_of
from beam_pipelines.windowing import Windowing
from configs import ExamplesConfig
from configs.sections import DEFAULT_WINDOWS

SETTINGS = (
    "--image_size=40",
    "--image_format=png",
    "--val_ratio=0.4",
    "--slices_per_shard=4",
    "--channels=windows",
)


def build(archive: Path, data_dir: Path, *flags: str, settings: tuple[str, ...] = SETTINGS) -> None:
    run(["--archive", str(archive), "--data_dir", str(data_dir), *settings, *flags])


def build_all(archive: Path, data_dir: Path, *flags: str) -> None:
    """The three archive stages."""
    for stage in (extract_metadata, process_labels):
        stage.run(
            ["--archive", str(archive), "--data_dir", str(data_dir)]
            + (["--max_bad_fraction=1"] if stage is extract_metadata else [])
        )
    build(archive, data_dir, *flags)


def shard_files(data_dir: Path) -> dict[str, bytes]:
    paths = (p for split in SPLITS for p in (data_dir / split).glob("*.tfrecord"))
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in paths}


def records(path: Path) -> list[tuple[schema.Slice, dict[str, list[Any]]]]:
    with path.open("rb") as file:
        return [schema.decode_slice(data) for _, data in tfrecord.read_records(file, str(path))]


def shards(data_dir: Path) -> dict[tuple[str, str], list[schema.Slice]]:
    return {
        (split, path.name): [item for item, _ in records(path)]
        for split in SPLITS
        for path in sorted((data_dir / split).glob("*.tfrecord"))
    }


def manifest(data_dir: Path, split: str) -> dict[str, Any]:
    return json.loads((data_dir / split / "manifest.json").read_text())


def times(data_dir: Path) -> dict[str, int]:
    paths = (p for split in SPLITS for p in (data_dir / split).glob("*.tfrecord"))
    return {str(path.relative_to(data_dir)): path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def built(archive: Path, described: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with examples; tests must not write into it."""
    data_dir = tmp_path_factory.mktemp("built") / "data"
    shutil.copytree(described, data_dir)
    build(archive, data_dir)
    return data_dir


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A data root with examples to write into."""
    return Path(shutil.copytree(built, tmp_path / "data"))


def test_every_slice_is_there_once_with_its_labels(built: Path):
    items = [item for items in shards(built).values() for item in items]
    assert len(items) == len({item.image_id for item in items})
    assert {i.image_id: (i.patient_id, i.label) for i in items} == {
        s.image_id: (s.patient_id, s.label) for s in make_slices()
    }


def test_slices_are_in_the_split_of_their_patient(built: Path):
    for (split, _), items in shards(built).items():
        for item in items:
            subset = "test" if item.patient_id.startswith("ID_test") else "train"
            assert split == split_of(item.patient_id, subset, 0.4, "split-1")
    assert {split for split, _ in shards(built)} == set(SPLITS)


def test_no_patient_is_in_two_shards(built: Path):
    patients = [{item.patient_id for item in items} for items in shards(built).values()]
    assert len(patients) > len(SPLITS)
    for one, other in itertools.combinations(patients, 2):
        assert not one & other


def test_series_are_whole_and_in_anatomical_order(built: Path):
    expected: dict[str, list[str]] = {}
    for index in range(6):
        expected[f"ID_ID_train{index}-series1"] = [
            s.image_id for s in make_series(f"ID_train{index}", 2 + index % 3)
        ]
    expected["ID_ID_train0-series2"] = [s.image_id for s in make_series("ID_train0", 3, study=2)]
    for index in range(2):
        expected[f"ID_ID_test{index}-series1"] = [
            s.image_id for s in make_series(f"ID_test{index}", 3 + index, subset="test")
        ]
    found = {}
    for items in shards(built).values():
        for uid, group in itertools.groupby(items, key=lambda item: item.series_instance_uid):
            series = list(group)
            assert uid not in found
            found[uid] = [item.image_id for item in series]
            assert [item.index for item in series] == list(range(len(series)))
            assert {item.num_slices for item in series} == {len(series)}
            gaps = np.diff([item.position_mm for item in series])
            np.testing.assert_allclose(gaps, 5, atol=1e-3)
            assert [item.gap_below_mm for item in series[1:]] == pytest.approx(gaps)
            assert [item.gap_above_mm for item in series[:-1]] == pytest.approx(gaps)
    assert found == expected


def test_images_are_the_windowed_slices(built: Path):
    data = {s.image_id: s.data for s in make_slices()}
    windowing = Windowing(DEFAULT_WINDOWS)
    for path in built.glob("*/*.tfrecord"):
        for item, features in records(path):
            image = cv2.imdecode(np.frombuffer(features[schema.IMAGE_ENCODED][0], "u1"), 1)
            expected = windowing(decode_hounsfield(data[item.image_id]))
            np.testing.assert_array_equal(image[4:36, :, ::-1], expected)
            assert features[schema.IMAGE_HEIGHT] == features[schema.IMAGE_WIDTH] == [40]


def test_by_default_a_record_is_the_slice_in_three_windows_and_no_more(archive: Path, copy: Path):
    """Byte for byte: neighbours and crop have changed nothing for those who do not ask for them."""
    data = {s.image_id: s.data for s in make_slices()}
    render = Renderer(DEFAULT_WINDOWS, 40)
    build(archive, copy, "--image_format=jpeg")
    for path in copy.glob("*/*.tfrecord"):
        with path.open("rb") as file:
            for _, record in tfrecord.read_records(file, str(path)):
                item, _ = schema.decode_slice(record)
                encoded = images.encode(render(*read_stored(data[item.image_id])), "jpeg", 95)
                assert record == schema.encode_example(item, encoded, "jpeg", 40, 40)


def pixels(data_dir: Path, num_channels: int = 3) -> dict[str, list[np.ndarray]]:
    """The images of each series in their stored order, as models see them."""
    series: dict[str, list[np.ndarray]] = {}
    for path in sorted(data_dir.glob("*/*.tfrecord")):
        with path.open("rb") as file:
            stored = [data for _, data in tfrecord.read_records(file, str(path))]
        if stored:
            found = schema.parse_examples(stored, 40, num_channels)["images"].numpy()
            for record, image in zip(stored, found, strict=True):
                uid = schema.decode_slice(record)[0].series_instance_uid
                series.setdefault(uid, []).append(image)
    return series


def assert_neighbours(windows: list[np.ndarray], neighbours: list[np.ndarray]) -> None:
    """Each channel is the brain window of the slice below, the slice and the slice above."""
    brain = [image[..., 0] for image in windows]
    below, above = [brain[0], *brain[:-1]], [*brain[1:], brain[-1]]
    np.testing.assert_array_equal(neighbours, np.stack([below, brain, above], axis=-1))


def test_neighbours_are_the_slices_next_in_the_stored_order(archive: Path, built: Path, copy: Path):
    build(archive, copy, "--channels=neighbours")
    expected, found = pixels(built), pixels(copy)
    assert found.keys() == expected.keys()
    assert min(map(len, found.values())) == 2
    for uid, windows in expected.items():
        assert_neighbours(windows, found[uid])
    assert manifest(copy, "train")["settings"]["channels"] == "neighbours"


def test_six_channels_are_windows_then_neighbours(archive: Path, built: Path, copy: Path):
    build(archive, copy, "--channels=both")
    expected, found = pixels(built), pixels(copy, 6)
    assert found.keys() == expected.keys()
    for uid, windows in expected.items():
        np.testing.assert_array_equal([image[..., :3] for image in found[uid]], windows)
        assert_neighbours(windows, [image[..., 3:] for image in found[uid]])
    for path in copy.glob("*/*.tfrecord"):
        for _, features in records(path):
            assert features[schema.IMAGE_HEIGHT] == [80]
            assert features[schema.IMAGE_WIDTH] == [40]


def test_a_quarantined_slice_is_no_neighbour_and_one_slice_has_none(tmp_path: Path):
    slices = make_series("ID_train1", 5) + make_series("ID_train2", 1)
    files = archive_files(slices)
    files[slices[1].name] = files[slices[1].name][:-1]
    files[slices[4].name] = files[slices[4].name][:-1]
    archive, data_dir = write_zip(tmp_path / "a.zip", files), tmp_path / "data"
    build_all(archive, data_dir, "--max_bad_fraction=1")
    windows = pixels(data_dir)
    build(archive, data_dir, "--max_bad_fraction=1", "--channels=neighbours")
    neighbours = pixels(data_dir)
    assert sorted(map(len, neighbours.values())) == [1, 3]
    for uid in windows:
        assert_neighbours(windows[uid], neighbours[uid])


def with_head(data: bytes, row: int) -> bytes:
    """The slice with a head of radius 7 over a table, in air, in place of its pixels."""
    stored = np.full((32, 40), 24, np.int16)
    rows, columns = np.ogrid[:32, :40]
    stored[(rows - row) ** 2 + (columns - 18) ** 2 <= 49] = 1064
    stored[30] = 1100
    return data[: -stored.nbytes] + stored.tobytes()


@pytest.mark.parametrize("channels", ["windows", "neighbours"])
def test_a_series_is_cropped_to_its_heads(tmp_path: Path, channels: str):
    slices = make_series("ID_train1", 4)
    heads = {s.name: with_head(s.data, 12 + i) for i, s in enumerate(slices)}
    archive = write_zip(tmp_path / "a.zip", {**archive_files(slices), **heads})
    build_all(archive, tmp_path / "data", "--crop=head", f"--channels={channels}")
    (found,) = pixels(tmp_path / "data").values()
    # Rows 5 to 22 and columns 11 to 25, a pixel more each way, and a margin of one.
    part = (slice(3, 25), slice(7, 29))
    render = Renderer(DEFAULT_WINDOWS, 40)
    stored = (read_stored(data) for data in heads.values())
    windows = [render(values[part], rescale) for values, rescale in stored]
    if channels == "windows":
        np.testing.assert_array_equal(found, windows)
    else:
        assert_neighbours(windows, found)
    assert manifest(tmp_path / "data", "train")["settings"]["crop"] == "head"


def test_manifests_count_what_is_there(built: Path):
    for split in SPLITS:
        found = manifest(built, split)
        names = [shard["name"] for shard in found["shards"]]
        assert names == sorted(path.name for path in (built / split).glob("*.tfrecord"))
        items = [item for name in names for item in shards(built)[split, name]]
        labels = np.array([item.label for item in items if item.label is not None])
        assert found["num_slices"] == len(items)
        assert found["num_labelled"] == len(labels) == (0 if split == "test" else len(items))
        assert found["num_patients"] == len({item.patient_id for item in items})
        assert found["num_series"] == len({item.series_instance_uid for item in items})
        sums = labels.sum(axis=0).tolist() if len(labels) else [0] * 6
        assert found["label_counts"] == dict(zip(schema.SUBTYPES, sums, strict=True))
        assert found["settings"]["image_size"] == 40
        assert found["settings"]["val_ratio"] == 0.4


@pytest.mark.parametrize(
    ("write", "shuffled", "flags"),
    [
        (write_zip, True, ["--direct_running_mode=in_memory", "--direct_num_workers=1"]),
        (write_folder, False, ["--direct_num_workers=3"]),
    ],
    ids=["shuffled zip, one worker", "folder, three workers"],
)
def test_the_way_there_changes_no_byte(
    built: Path, tmp_path: Path, write, shuffled: bool, flags: list[str]
):
    files = list(archive_files(make_slices()).items())
    if shuffled:
        random.Random(1).shuffle(files)
    build_all(write(tmp_path / "archive", dict(files)), tmp_path / "data", *flags)
    assert shard_files(tmp_path / "data") == shard_files(built)


@pytest.mark.slow
def test_many_processes_change_no_byte(archive: Path, built: Path, tmp_path: Path):
    flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    build_all(archive, tmp_path / "data", *flags)
    assert shard_files(tmp_path / "data") == shard_files(built)


def test_a_second_run_uses_every_shard(
    archive: Path, copy: Path, capsys: pytest.CaptureFixture[str]
):
    before, first = times(copy), manifest(copy, "train")
    build(archive, copy)
    assert times(copy) == before
    assert manifest(copy, "train") == first
    num_slices = len(make_slices())
    assert capsys.readouterr().err == (
        f"build_examples: {num_slices} slices in, {num_slices} written, 0 quarantined; "
        f"{len(before)} shards were there already\n"
    )


def test_what_a_killed_run_left_is_finished(archive: Path, built: Path, copy: Path):
    """A shard without a receipt, one that is not there, half a shard and no manifest."""
    first, second = sorted(name for name in times(copy) if name.startswith("train"))[:2]
    (copy / f"{first}.receipt.json").unlink()
    (copy / first).write_bytes(b"of another run")
    (copy / second).rename(copy / f"{second}.tmp-0123abcd")
    (copy / "train" / "manifest.json").unlink()
    before = times(copy)
    build(archive, copy)
    assert shard_files(copy) == shard_files(built)
    assert manifest(copy, "train") == manifest(built, "train")
    changed = {name for name, time in times(copy).items() if before.get(name) != time}
    assert changed == {first, second}
    assert not list(copy.rglob("*.tmp-*"))


@pytest.mark.parametrize("flag", ["--image_format=jpeg", "--channels=neighbours", "--crop=none"])
def test_another_setting_rebuilds(archive: Path, copy: Path, flag: str):
    before, old = times(copy), manifest(copy, "train")["fingerprint"]
    build(archive, copy, flag)
    after = times(copy)
    assert not {name for name, time in after.items() if before.get(name) == time}
    assert manifest(copy, "train")["fingerprint"] != old
    assert sum(map(len, shards(copy).values())) == len(make_slices())


def test_shards_of_another_number_are_removed(archive: Path, copy: Path):
    build(archive, copy, "--slices_per_shard=100")
    assert list(times(copy)) == [f"{split}/shard-00000-of-00001.tfrecord" for split in SPLITS]
    assert len(list(copy.glob("*/*.tfrecord.receipt.json"))) == 3


def bad_slices() -> tuple[list[SyntheticSlice], dict[str, bytes]]:
    """Series of two patients with a cut slice, a colour image, a copy and a slice in no plane."""
    slices = make_series("ID_train1", 4) + make_series("ID_train2", 4)
    files = archive_files(slices)
    files[slices[1].name] = files[slices[1].name][:-100]
    files[slices[6].name] = make_dicom(
        SOPInstanceUID=slices[6].image_id,
        PatientID="ID_train2",
        StudyInstanceUID="ID_ID_train2-study1",
        SeriesInstanceUID="ID_ID_train2-series1",
        SamplesPerPixel=3,
    )
    files[f"{ROOT}/stage_2_train/copy.dcm"] = slices[0].data
    files[f"{ROOT}/stage_2_train/plane.dcm"] = make_dicom(
        SOPInstanceUID="ID_plane", ImageOrientationPatient=[0] * 6
    )
    return slices, files


def test_bad_slices_are_named_and_the_others_written(tmp_path: Path):
    slices, files = bad_slices()
    archive = write_zip(tmp_path / "a.zip", files)
    with pytest.raises(UserError) as error:
        build_all(archive, tmp_path / "data", "--max_bad_fraction=0.3")
    assert str(error.value) == (
        "build_examples: 3 of 9 slices are bad, more than --max_bad_fraction 0.3 allows; see "
        f"{tmp_path}/data/quarantine/build_examples.csv, then mend the archive or allow more"
    )
    assert not list((tmp_path / "data").glob("*/manifest.json"))
    build(archive, tmp_path / "data", "--max_bad_fraction=0.4")
    bad = read_quarantine(DataLayout(str(tmp_path / "data")), "build_examples")
    copied, twin = sorted([slices[0].name, f"{ROOT}/stage_2_train/copy.dcm"])
    (copy_,) = read_quarantine(DataLayout(str(tmp_path / "data")), "extract_metadata")
    assert (copy_.member_name, copy_.image_id) == (twin, slices[0].image_id)
    assert copy_.reason == f"SOPInstanceUID is also that of {copied}"
    assert {(b.member_name, b.image_id, b.reason) for b in bad} == {
        (slices[1].name, slices[1].image_id, "pixel data is cut short: 2460 of 2560 bytes"),
        (
            slices[6].name,
            slices[6].image_id,
            "SamplesPerPixel is not 1: a colour image, not a CT slice",
        ),
        (
            f"{ROOT}/stage_2_train/plane.dcm",
            "ID_plane",
            "ImageOrientationPatient spans no plane",
        ),
    }
    items = [item for items in shards(tmp_path / "data").values() for item in items]
    assert {item.image_id for item in items} == {
        s.image_id for i, s in enumerate(slices) if i not in (1, 6)
    }
    # The gap where a slice is missing is twice as wide.
    first = [i for i in items if i.patient_id == "ID_train1"]
    assert [(i.index, i.num_slices, round(i.gap_below_mm)) for i in first] == [
        (0, 3, 0),
        (1, 3, 10),
        (2, 3, 5),
    ]


def test_an_archive_without_train_slices_needs_no_labels(tmp_path: Path):
    files = archive_files(make_series("ID_test0", 3, subset="test"))
    archive = write_zip(tmp_path / "a.zip", files)
    extract_metadata.run(["--archive", str(archive), "--data_dir", str(tmp_path)])
    build(archive, tmp_path)
    assert [manifest(tmp_path, split)["num_slices"] for split in SPLITS] == [0, 0, 3]


def test_inputs_that_are_missing_are_user_errors(archive: Path, described: Path, tmp_path: Path):
    with pytest.raises(UserError) as error:
        build(archive, tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/metadata_manifest.json: no such file; run python -m "
        "beam_pipelines.extract_metadata first"
    )
    data_dir = Path(shutil.copytree(described, tmp_path / "data"))
    (data_dir / "reshaped_stage_2_train.csv").unlink()
    with pytest.raises(UserError) as error:
        build(archive, data_dir)
    assert str(error.value) == (
        f"{data_dir}/reshaped_stage_2_train.csv: no such file; run python -m "
        "beam_pipelines.process_labels first"
    )
    assert not list(tmp_path.rglob("*.tfrecord"))


def test_wrong_archives_and_configs_leave_what_is_there(copy: Path, tmp_path: Path):
    (tmp_path / "text.zip").write_text("no zip")
    other = write_zip(tmp_path / "other.zip", archive_files(make_series("p", 3)))
    (tmp_path / "c.yaml").write_text("examples: {image_sise: 3}")
    before = times(copy)
    for archive, flags, message in [
        ("absent.zip", [], r"--archive absent\.zip: no such file or folder"),
        (tmp_path / "text.zip", [], r"text\.zip: not a zip archive"),
        (other, [], r"other\.zip: holds 3 DICOM files, but the metadata is of \d+; give the"),
        (other, [f"--config={tmp_path}/c.yaml"], "examples: unknown key 'image_sise'; known keys"),
        (other, ["--val_ratio=2"], r"ExamplesConfig\.val_ratio: received 2\.0; give a number"),
        (other, ["--image_siz=2"], "unknown flag --image_siz"),
    ]:
        with pytest.raises(UserError, match=message):
            build(archive, copy, *flags)
    assert times(copy) == before
    assert [manifest(copy, split)["stage"] for split in SPLITS] == ["build_examples"] * 3


def test_number_of_shards():
    config = ExamplesConfig(val_ratio=0.1, slices_per_shard=2048, channels="windows")
    sizes = num_shards({"train": 752_803, "test": 121_232}, config)
    assert sizes == {"train": 331, "validation": 37, "test": 59}
