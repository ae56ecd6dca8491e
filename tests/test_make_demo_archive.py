import csv
import dataclasses
import io
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest

from beam_pipelines import make_demo_archive
from beam_pipelines.demo_archive import LABEL_NAMES, ROOT, draw_slice, write_archive
from beam_pipelines.demo_plan import DemoPlan, plan_demo
from beam_pipelines.errors import UserError
from beam_pipelines.phantom_headers import (
    RARE_STORAGES,
    SIGNED_16,
    UNSIGNED_12,
    HeaderVariant,
    Storage,
    plan_variants,
    store,
)
from beam_pipelines.phantom_lesions import SUBTYPES
from beam_pipelines.phantoms import OUTSIDE_HU, labels_of, render_slice
from beam_pipelines.zip_writer import ZipWriter, deflate


def few(plan: DemoPlan, slices: int) -> DemoPlan:
    """The same plan, with its first slices alone."""
    order = plan.order[:slices]
    uids = {plan.studies[s].slices[i].identity.sop_instance_uid for s, i in order}
    kept = tuple(uid for uid in plan.duplicates if uid in uids)
    return dataclasses.replace(plan, order=order, duplicates=kept)


def write(plan: DemoPlan, path: Path, workers: int = 1) -> bytes:
    write_archive(plan, str(path), workers)
    return path.read_bytes()


def read_slices(path: Path) -> dict[str, pydicom.Dataset]:
    with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `ID_...` is not a valid UID
        return {
            name: pydicom.dcmread(io.BytesIO(archive.read(name)))
            for name in archive.namelist()
            if name.endswith(".dcm")
        }


def read_csv(path: Path, name: str) -> list[tuple[str, str]]:
    with zipfile.ZipFile(path) as archive:
        rows = list(csv.reader(io.StringIO(archive.read(f"{ROOT}/{name}").decode())))
    assert rows[0] == ["ID", "Label"]
    return [(row[0], row[1]) for row in rows[1:]]


def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    plan = few(plan_demo(patients=4, seed=5, broken=0), 20)
    first = write(plan, tmp_path / "a.zip")
    assert write(few(plan_demo(patients=4, seed=5, broken=0), 20), tmp_path / "b.zip") == first
    assert write(plan, tmp_path / "c.zip", workers=2) == first
    assert write(few(plan_demo(patients=4, seed=6, broken=0), 20), tmp_path / "d.zip") != first
    assert not list(tmp_path.glob("*tmp*"))


def test_archive_has_the_real_layout(tmp_path: Path) -> None:
    plan = few(plan_demo(patients=6, seed=1, test_fraction=0.5, broken=1), 30)
    write(plan, tmp_path / "demo.zip")
    slices = read_slices(tmp_path / "demo.zip")
    assert len(slices) == 30
    for name, dataset in slices.items():
        folder, stem = Path(name).parent, Path(name).stem
        assert folder in (Path(ROOT, "stage_2_train"), Path(ROOT, "stage_2_test"))
        assert stem == dataset.SOPInstanceUID
        assert "InstanceNumber" not in dataset
        assert dataset.StudyID == ""
        lengths = [
            len(dataset[key].value)
            for key in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        ]
        assert lengths == [11, 13, 13, 12]
        assert all(len(str(text)) <= 16 for text in dataset.ImagePositionPatient)


def test_label_rows(tmp_path: Path) -> None:
    plan = few(plan_demo(patients=6, seed=1, test_fraction=0.5), 30)
    plan = dataclasses.replace(plan, duplicates=(first_train_uid(plan),))
    write(plan, tmp_path / "demo.zip")
    names = list(read_slices(tmp_path / "demo.zip"))
    train = [Path(name).stem for name in names if "stage_2_train" in name]
    test = [Path(name).stem for name in names if "stage_2_test" in name]
    rows = read_csv(tmp_path / "demo.zip", "stage_2_train.csv")
    expected = [f"{uid}_{name}" for uid in (*train, *plan.duplicates) for name in LABEL_NAMES]
    assert [row[0] for row in rows] == expected
    assert rows[-6:] == [row for row in rows[:-6] if row[0].startswith(plan.duplicates[0])]
    for k in range(0, len(rows), 6):
        values = [int(label) for _, label in rows[k : k + 6]]
        assert values[-1] == max(values[:-1])
    submission = read_csv(tmp_path / "demo.zip", "stage_2_sample_submission.csv")
    assert submission == [(f"{u}_{name}", "0.5") for u in sorted(test) for name in LABEL_NAMES]


def first_train_uid(plan: DemoPlan) -> str:
    study, index = next(pair for pair in plan.order if plan.studies[pair[0]].subset == "train")
    return plan.studies[study].slices[index].identity.sop_instance_uid


def test_labels_follow_the_lesions() -> None:
    plan = plan_demo(patients=12, seed=2)
    bleeding = next(s for s, study in enumerate(plan.studies) if study.lesions)
    healthy = next(s for s, study in enumerate(plan.studies) if not study.lesions)
    subtypes = {lesion.subtype for lesion in plan.studies[bleeding].lesions}
    drawn = [
        draw_slice(plan.studies[bleeding], bleeding, i, plan.seed).labels
        for i in range(len(plan.studies[bleeding].slices))
    ]
    found = {name for labels in drawn for name, v in zip(SUBTYPES, labels, strict=False) if v}
    assert found
    assert found <= subtypes
    assert not any(draw_slice(plan.studies[healthy], healthy, i, 2).labels[-1] for i in (8, 14))


def test_nothing_but_pixels_tells_a_label() -> None:
    bleeding = plan_demo(patients=40, seed=9)
    healthy = plan_demo(patients=40, seed=9, lesions=False)
    assert any(study.lesions for study in bleeding.studies)
    assert not any(study.lesions for study in healthy.studies)
    assert bleeding.order == healthy.order
    assert bleeding.duplicates == healthy.duplicates
    for one, other in zip(bleeding.studies, healthy.studies, strict=True):
        assert dataclasses.replace(one, lesions=()) == other


def test_headers_and_raw_sizes_do_not_depend_on_lesions() -> None:
    bleeding, healthy = (plan_demo(patients=8, seed=9, lesions=on) for on in (True, False))
    study = next(s for s, study in enumerate(bleeding.studies) if study.lesions)
    lesion = bleeding.studies[study].lesions[0]
    levels = [abs(plan.level_mm - lesion.center[2]) for plan in bleeding.studies[study].slices]
    index = int(np.argmin(levels))
    one, other = (draw_slice(p.studies[study], study, index, 9) for p in (bleeding, healthy))
    assert one.member.crc != other.member.crc
    assert one.member.name == other.member.name
    assert one.member.size == other.member.size
    headers = []
    for drawn in (one, other):
        contents = zlib.decompress(drawn.member.deflated, -15)
        headers.append(contents[: len(contents) - 2 * 512 * 512])
    assert headers[0] == headers[1]


def test_members_are_not_in_anatomical_order() -> None:
    plan = plan_demo(patients=5, seed=0)
    first = [index for study, index in plan.order if study == 0]
    assert first != sorted(first)
    assert sorted(first) == list(range(len(plan.studies[0].slices)))


def test_patients_are_in_one_subset_and_some_have_two_studies() -> None:
    plan = plan_demo(patients=100, seed=4, test_fraction=0.2)
    owners: dict[str, set[str]] = {"train": set(), "test": set()}
    for study in plan.studies:
        owners[study.subset].add(study.slices[0].identity.patient_id)
    assert (len(owners["train"]), len(owners["test"])) == (80, 20)
    assert not owners["train"] & owners["test"]
    assert 102 <= len(plan.studies) <= 118
    counts = [len(study.slices) for study in plan.studies]
    assert (min(counts) >= 20, max(counts) <= 60, 28 <= np.median(counts) <= 34) == (True,) * 3
    assert len({s.identity.sop_instance_uid for study in plan.studies for s in study.slices}) == (
        sum(counts)
    )


def test_every_rare_header_appears_in_a_demo() -> None:
    variants = plan_variants(np.random.default_rng(0), num_series=110, num_train=88)
    storages = [variant.storage for variant in variants]
    assert {SIGNED_16, UNSIGNED_12, *RARE_STORAGES[:3]} <= set(storages)
    assert sum(storage.wraps for storage in storages) == 1
    assert not any(storage.wraps for storage in storages[88:])
    assert sum((v.rows, v.columns) != (512, 512) for v in variants) == 1
    assert 40 <= storages.count(SIGNED_16) <= 75
    assert {len(v.window_center) for v in variants} == {1, 2}
    assert {v.explicit_vr for v in variants} == {True, False}
    assert {v.intercept_decimals for v in variants} == {0, 6}


@pytest.mark.parametrize("storage", [SIGNED_16, UNSIGNED_12, *RARE_STORAGES])
def test_stored_values_give_back_hounsfield_units(storage: Storage) -> None:
    variant = next(
        dataclasses.replace(v, storage=storage, padding=0)
        for v in plan_variants(np.random.default_rng(0), 1, 1)
    )
    hu = np.array([[-1000.0, -87.4, 0.0, 31.6, 1800.0]], np.float32)
    stored = store(hu, variant, np.zeros(hu.shape, bool)).astype(np.int32)
    if storage.wraps:  # the known repair
        assert stored.max() < 4096
        stored, intercept = (stored + 1000) % 4096, -1000
    else:
        intercept = storage.rescale_intercept
    np.testing.assert_array_equal(stored + intercept, np.rint(hu))


def test_pixels_survive_encoding(tmp_path: Path) -> None:
    plan = few(plan_demo(patients=3, seed=8, broken=0), 6)
    write(plan, tmp_path / "demo.zip")
    for (study, index), dataset in zip(
        plan.order, read_slices(tmp_path / "demo.zip").values(), strict=True
    ):
        described = plan.studies[study]
        assert dataset.file_meta.MediaStorageSOPInstanceUID.startswith("9999.")
        assert dataset.pixel_array.shape == (described.variant.rows, described.variant.columns)
        position = [float(v) for v in dataset.ImagePositionPatient]
        assert position == pytest.approx(described.slices[index].geometry.position, abs=1e-3)


def test_broken_slices_are_cut_short_in_their_pixels(tmp_path: Path) -> None:
    plan = plan_demo(patients=3, seed=8, broken=2)
    cut = [(s, i) for s, i in plan.order if plan.studies[s].slices[i].keep < 1.0]
    assert len(cut) == 2
    assert all(plan.studies[s].subset == "train" for s, _ in cut)
    write(dataclasses.replace(plan, order=tuple(cut), duplicates=()), tmp_path / "demo.zip")
    for dataset in read_slices(tmp_path / "demo.zip").values():
        assert len(dataset.PixelData) == 153_710


def test_slice_order_is_the_position_along_the_normal() -> None:
    for study in plan_demo(patients=20, seed=3).studies:
        along = []
        for plan in study.slices:
            row, column = np.reshape(plan.geometry.orientation, (2, 3))
            along.append(np.cross(row, column) @ np.array(plan.geometry.position))
        gaps, levels = np.diff(along), np.diff([plan.level_mm for plan in study.slices])
        np.testing.assert_allclose(gaps, levels, atol=1e-6)
        assert (gaps >= -1e-6).all()


def test_zip_writer_output_is_read_by_zipfile(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        writer = ZipWriter(file)
        for name, contents in (("a/b.txt", b"hello " * 99), ("empty", b"")):
            writer.add(deflate(name, contents))
        writer.close()
    assert writer.size == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("a/b.txt") == b"hello " * 99
        assert archive.read("empty") == b""


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, solution = tmp_path / "demo.zip", tmp_path / "solution.csv"
    arguments = ["--output", str(output), "--solution", str(solution), "--patients", "2"]
    make_demo_archive.main([*arguments, "--test_fraction", "0.5", "--workers", "1"])
    printed = capsys.readouterr().out
    assert "2 patients" in printed
    assert "positive train slices: epidural" in printed
    test = read_csv(output, "stage_2_sample_submission.csv")
    with solution.open() as file:
        assert [row[0] for row in list(csv.reader(file))[1:]] == [row[0] for row in test]
    with pytest.raises(UserError, match=r"demo\.zip exists.*--overwrite"):
        make_demo_archive.main(arguments)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--patients", "0"),
        ("--seed", "-1"),
        ("--test_fraction", "1.0"),
        ("--workers", "0"),
        ("--broken", "-1"),
        ("--broken", "2000"),
        ("--output", "."),
    ],
)
def test_wrong_flags_are_refused(tmp_path: Path, flag: str, value: str) -> None:
    arguments = ["--output", str(tmp_path / "x.zip"), "--patients", "10", flag, value]
    with pytest.raises(UserError, match=rf"{flag} .*Received.*{value}"):
        make_demo_archive.main(arguments)
    assert not list(tmp_path.iterdir())


def test_user_error_is_one_line_and_exit_code_2() -> None:
    command = [sys.executable, "-m", "beam_pipelines.make_demo_archive"]
    done = subprocess.run(
        [*command, "--output", "x.zip", "--patients", "0"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: --patients must be at least 1. Received: 0.\n"


def test_labels_of_a_slice_are_those_of_its_areas() -> None:
    plan = plan_demo(patients=3, seed=11)
    study = plan.studies[0]
    hu, areas = render_slice(study.head, study.scan, study.lesions, 30.0, np.random.default_rng(0))
    assert set(areas) == set(SUBTYPES)
    assert len(labels_of(areas)) == 6
    assert (hu[hu != OUTSIDE_HU] >= -1024).all()


def test_variants_are_dealt_without_randomness_of_their_own() -> None:
    one, other = (plan_variants(np.random.default_rng(7), 40, 30) for _ in range(2))
    assert one == other
    assert all(isinstance(variant, HeaderVariant) for variant in one)
