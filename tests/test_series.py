import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import AXIAL, metadata_row, tilted

from beam_pipelines.member import Member
from beam_pipelines.series import (
    ShardKey,
    batch_by_shard,
    group_series,
    order_series,
)
from beam_pipelines.slice_references import (
    COLUMNS,
    RowBlock,
    SliceReference,
    patient_ids,
    unpack_rows,
)
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
    rows = [metadata_row(f"{i}", PatientID=patient) for i, patient in enumerate(patients * 2)]
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
