import csv
import dataclasses
import io
import itertools
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import AXIAL, make_dicom, random_hounsfield, tilted, write_zip

from beam_pipelines.archive import open_archive
from beam_pipelines.dicom import BadSliceError
from beam_pipelines.examples import (
    ExampleBuilder,
    ShardKey,
    SliceEncoder,
    batch_by_shard,
    group_series,
    order_series,
)
from beam_pipelines.images import resize, to_square
from beam_pipelines.member import Member
from beam_pipelines.slice_references import (
    COLUMNS,
    RowBlock,
    SliceReference,
    pack_rows,
    patient_ids,
    unpack_rows,
)
from beam_pipelines.windowing import Windowing
from configs import ExamplesConfig


def reference(image_id: str, height: float = 0.0, **values) -> SliceReference:
    defaults = {
        "patient_id": "p",
        "study_instance_uid": "st",
        "series_instance_uid": "se",
        "subset": "train",
        "instance_number": None,
        "image_position_patient": (0.0, 0.0, height),
        "image_orientation_patient": AXIAL,
        "pixel_spacing_mm": 0.5,
        "member": Member(f"{image_id}.dcm", 0, 0, 0),
    }
    return SliceReference(image_id, **{**defaults, **values})


def test_series_are_put_in_order_with_their_gaps():
    slices = [reference("b", 12), reference("c", 5, label=(0, 0, 0, 0, 0, 1)), reference("a", 0)]
    found = order_series(slices)
    assert [r.image_id for r, _ in found] == ["a", "c", "b"]
    assert [item.image_id for _, item in found] == ["a", "c", "b"]
    assert [(i.index, i.num_slices, i.position_mm) for _, i in found] == [
        (0, 3, 0),
        (1, 3, 5),
        (2, 3, 12),
    ]
    assert [(i.gap_below_mm, i.gap_above_mm) for _, i in found] == [(0, 5), (5, 7), (7, 0)]
    assert [i.label for _, i in found] == [None, (0, 0, 0, 0, 0, 1), None]
    assert order_series([]) == []


@given(st.randoms(), st.sampled_from([0, 12, 25]))
def test_order_does_not_depend_on_the_input(random, degrees: int):
    orientation = tilted(degrees)
    normal = np.cross(orientation[:3], orientation[3:])
    slices = [
        reference(
            f"{i}",
            image_position_patient=tuple(normal * 5 * (i // 2)),
            image_orientation_patient=orientation,
            instance_number=9 - i if i % 3 else None,
        )
        for i in range(8)
    ]
    shuffled = list(slices)
    random.shuffle(shuffled)
    assert order_series(group_series(shuffled)[0]) == order_series(group_series(slices)[0])


def test_slices_without_a_plane_are_an_error():
    with pytest.raises(ValueError, match="spans no plane"):
        order_series([reference("a", image_orientation_patient=(0.0,) * 6)])


def test_series_are_of_one_patient_study_and_uid():
    slices = [
        reference(f"{p}{st}{se}{i}", patient_id=p, study_instance_uid=st, series_instance_uid=se)
        for p, st, se, i in itertools.product("ab", "cd", "ef", range(2))
    ]
    random.Random(0).shuffle(slices)
    groups = group_series(slices)
    assert [[r.image_id for r in group] for group in groups] == [
        [f"{p}{st}{se}0", f"{p}{st}{se}1"] for p, st, se in itertools.product("ab", "cd", "ef")
    ]


def row(image_id: str, height: float = 0.0, **cells: Any) -> str:
    """A row of a metadata file."""
    found: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    found |= {"SOPInstanceUID": image_id, "PatientID": "p", "StudyInstanceUID": "st"}
    found |= {"SeriesInstanceUID": "se", "ImagePositionPatient_2": height}
    found |= {f"ImagePositionPatient_{i}": 0 for i in range(2)}
    found |= {f"ImageOrientationPatient_{i}": v for i, v in enumerate(AXIAL)}
    found |= {f"member_{name}": 0 for name in Member._fields}
    found |= {"member_name": f"{image_id}.dcm", **cells}
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(found.values())
    return text.getvalue()


@given(
    st.lists(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1), max_size=20),
    st.sampled_from(["train", "test"]),
    st.integers(0, 3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_go_to_the_shard_of_their_patient(
    tmp_path: Path, patients: list[str], subset: str, seed: int
):
    """Every row comes out once, a patient's rows in one shard, whatever their order."""
    config = ExamplesConfig(val_ratio=0.5)
    counts = {"train": 7, "validation": 5, "test": 3}
    rows = [row(f"{i}", PatientID=patient) for i, patient in enumerate(patients * 2)]
    random.Random(seed).shuffle(rows)
    file = tmp_path / "metadata.csv"
    file.write_text("\n".join([",".join(COLUMNS), *rows, ""]))
    block = RowBlock(str(file), subset, 0, file.stat().st_size)
    batches = dict(batch_by_shard(block, config, counts))
    unpacked = {key: unpack_rows(batch) for key, batch in batches.items()}
    assert sorted(itertools.chain.from_iterable(unpacked.values())) == sorted(rows)
    homes: dict[str, set[ShardKey]] = {}
    for key, found in unpacked.items():
        assert (key.split == "test") == (subset == "test")
        assert 0 <= key.shard < counts[key.split]
        for patient in patient_ids(found):
            homes.setdefault(patient, set()).add(key)
    assert all(len(keys) == 1 for keys in homes.values())


@pytest.mark.parametrize("shape", [(32, 40), (40, 32), (20, 20)])
def test_an_image_is_windowed_squared_and_resized(shape: tuple[int, int]):
    config = ExamplesConfig(image_size=16, image_format="png")
    data = SliceEncoder(config)(make_dicom(random_hounsfield(5, *shape) + 1024))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    windowed = Windowing(config.windows)(random_hounsfield(5, *shape))
    np.testing.assert_array_equal(image, resize(to_square(windowed), 16))


def test_jpeg_is_close_to_png():
    hounsfield = np.add.outer(np.arange(64), np.arange(64)) - 30
    data = make_dicom(hounsfield + 1024)
    png, jpeg = (
        cv2.imdecode(
            np.frombuffer(SliceEncoder(ExamplesConfig(64, image_format=f))(data), np.uint8),
            cv2.IMREAD_COLOR,
        ).astype(int)
        for f in ("png", "jpeg")
    )
    assert np.abs(png - jpeg).mean() < 2


def test_what_cannot_be_decoded_is_a_bad_slice(tmp_path: Path):
    with pytest.raises(BadSliceError, match="cut short"):
        SliceEncoder(ExamplesConfig())(make_dicom()[:-1])


def test_a_shards_fingerprint_follows_inputs_and_settings(tmp_path: Path):
    """What changes the shard rebuilds it; nothing else does."""
    files = {f"{i}.dcm": make_dicom(SOPInstanceUID=f"{i}") for i in range(2)}
    archive = write_zip(tmp_path / "a.zip", files)
    opened = open_archive(str(archive))
    cells = [
        {f"member_{name}": value for name, value in opened.member(i)._asdict().items()}
        for i in range(2)
    ]
    rows = [row(f"{i}", 5 * i, **cells[i]) for i in range(2)]
    config = ExamplesConfig(image_size=16)
    labels_csv = tmp_path / "labels.csv"
    labels_csv.write_text(
        "image_id,epidural,intraparenchymal,intraventricular,subarachnoid,"
        "subdural,any\n0,1,1,1,1,1,1\n"
    )

    def build(
        batches: list[list[str]], labels: Path | None = None, **changes: Any
    ) -> tuple[str, bool]:
        changed = dataclasses.replace(config, **changes)
        path = None if labels is None else str(labels)
        builder = ExampleBuilder(str(archive), str(tmp_path), changed, {"train": 1}, path)
        builder.setup()
        receipt = builder.build((ShardKey("train", 0), list(map(pack_rows, batches))))
        return receipt["fingerprint"], receipt.get("reused", False)

    first, reused = build([rows])
    assert not reused
    assert build([rows]) == (first, True)
    assert build([rows[1:], rows[:1]]) == (first, True)
    built = [
        build([rows], labels_csv),
        build([rows[:1]]),
        build([rows], image_size=24),
        build([rows], jpeg_quality=50),
        build([rows], windows=config.windows[::-1]),
        build([rows], val_ratio=0.2),
        build([[rows[0], row("1", 5, **{**cells[1], "member_crc": 1})]]),
    ]
    assert not any(reused for _, reused in built)
    assert len({first, *(fingerprint for fingerprint, _ in built)}) == 8
