import dataclasses
import itertools
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import AXIAL, make_dicom, random_hounsfield, tilted, write_zip

from beam_pipelines.archive import open_archive
from beam_pipelines.dicom import BadSliceError
from beam_pipelines.examples import (
    ExampleBuilder,
    ShardKey,
    SliceEncoder,
    attach_label,
    group_series,
    order_series,
    shard_key,
)
from beam_pipelines.images import resize, to_square
from beam_pipelines.member import Member
from beam_pipelines.metadata import SliceReference
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


def test_labels_are_attached():
    (found,) = attach_label([reference("a")], [[0, 1, 0, 0, 0, 1]])
    assert found == reference("a", label=(0, 1, 0, 0, 0, 1))
    assert attach_label([reference("a")], []) == [reference("a")]
    assert attach_label([], [[0] * 6]) == []


def test_an_image_id_is_used_once():
    twins = [reference("a", member=Member(name, 0, 0, 0)) for name in ("2.dcm", "1.dcm", "3.dcm")]
    for references in itertools.permutations(twins):
        first, *others = attach_label(references, [[0] * 6])
        assert (first.member.name, first.problem, first.label) == ("1.dcm", "", (0,) * 6)
        assert [(r.member.name, r.problem) for r in others] == [
            ("2.dcm", "SOPInstanceUID is also that of 1.dcm"),
            ("3.dcm", "SOPInstanceUID is also that of 1.dcm"),
        ]


@given(st.text(), st.sampled_from(["train", "test"]))
def test_a_patients_slices_are_in_one_shard(patient: str, subset: str):
    config = ExamplesConfig(val_ratio=0.5)
    counts = {"train": 7, "validation": 5, "test": 3}
    keys = {
        shard_key(
            reference(f"{i}", patient_id=patient, subset=subset, study_instance_uid=f"{i}"),
            config,
            counts,
        )
        for i in range(4)
    }
    assert len(keys) == 1
    key = keys.pop()
    assert (key.split == "test") == (subset == "test")
    assert 0 <= key.shard < counts[key.split]


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
    slices = [reference(f"{i}", 5 * i, member=opened.member(i)) for i in range(2)]
    config = ExamplesConfig(image_size=16)

    def build(references: list[SliceReference], **changes) -> tuple[str, bool]:
        changed = dataclasses.replace(config, **changes)
        builder = ExampleBuilder(str(archive), str(tmp_path), changed, {"train": 1})
        builder.setup()
        receipt = builder.build((ShardKey("train", 0), references))
        return receipt["fingerprint"], receipt.get("reused", False)

    first, reused = build(slices)
    assert not reused
    assert build(slices) == (first, True)
    assert build(slices[::-1]) == (first, True)
    labelled = [slices[0]._replace(label=(1,) * 6), slices[1]]
    built = [
        build(labelled),
        build(slices[:1]),
        build(slices, image_size=24),
        build(slices, jpeg_quality=50),
        build(slices, windows=config.windows[::-1]),
        build(slices, val_ratio=0.2),
        build([slices[0], slices[1]._replace(member=opened.member(1)._replace(crc=1))]),
    ]
    assert not any(reused for _, reused in built)
    assert len({first, *(fingerprint for fingerprint, _ in built)}) == 8
