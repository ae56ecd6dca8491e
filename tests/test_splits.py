from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.splits import shard_of, shards_for, split_of, subset_of, uniform

PATIENTS = [f"ID_{i:08x}" for i in range(5000)]


@pytest.mark.parametrize(
    ("name", "subset"),
    [
        ("rsna-intracranial-hemorrhage-detection/stage_2_train/ID_0.dcm", "train"),
        ("rsna-intracranial-hemorrhage-detection/stage_2_test/ID_0.dcm", "test"),
        ("train/a.dcm", "train"),
        ("test/train/a.dcm", "train"),
        ("train/test/a.dcm", "test"),
        ("trainees/a.dcm", "test"),
        ("constrain/a.dcm", "test"),
        ("train.dcm", "test"),
        ("a.dcm", "test"),
    ],
)
def test_subset_follows_the_last_such_folder(name: str, subset: str):
    assert subset_of(name) == subset


def test_hash_is_the_same_for_ever():
    """Another hash would move patients from the train split into the validation split."""
    assert uniform("split-1", "ID_0002cd41") == 0.14227020178594119
    assert uniform("") == 0.8931675160897388
    splits = [split_of(p, "train", 0.1, "split-1") for p in PATIENTS[:1000]]
    assert [i for i, s in enumerate(splits) if s == "validation"][:8] == [
        33,
        41,
        55,
        67,
        68,
        71,
        80,
        89,
    ]
    assert [shard_of(p, 8) for p in PATIENTS[:12]] == [3, 7, 4, 5, 2, 4, 4, 1, 5, 1, 4, 5]


@given(st.lists(st.text()))
def test_uniform_is_in_the_half_open_interval(parts: list[str]):
    assert 0 <= uniform(*parts) < 1


def test_parts_are_not_run_together():
    assert uniform("ab", "c") != uniform("a", "bc")


@given(st.text(), st.floats(0, 0.99), st.text())
def test_test_slices_stay_test_slices(patient: str, val_ratio: float, salt: str):
    assert split_of(patient, "test", val_ratio, salt) == "test"
    assert split_of(patient, "train", val_ratio, salt) in ("train", "validation")


@pytest.mark.parametrize("val_ratio", [0.0, 0.1, 0.5])
def test_share_of_validation_patients_is_as_asked(val_ratio: float):
    splits = Counter(split_of(p, "train", val_ratio, "split-1") for p in PATIENTS)
    assert splits["validation"] / len(PATIENTS) == pytest.approx(val_ratio, abs=0.015)


def test_a_larger_share_keeps_the_patients_of_a_smaller_one():
    small, large = (
        {p for p in PATIENTS if split_of(p, "train", ratio, "s") == "validation"}
        for ratio in (0.1, 0.2)
    )
    assert small < large


def test_another_salt_gives_another_split():
    first, second = (
        {p for p in PATIENTS if split_of(p, "train", 0.1, salt) == "validation"}
        for salt in ("split-1", "split-2")
    )
    assert 0 < len(first & second) < 0.3 * len(first)


@given(st.text(), st.integers(1, 1000))
def test_shard_is_in_range(patient: str, num_shards: int):
    assert 0 <= shard_of(patient, num_shards) < num_shards


def test_shards_are_of_like_size():
    counts = Counter(shard_of(p, 8) for p in PATIENTS)
    assert set(counts) == set(range(8))
    assert max(counts.values()) < 1.2 * len(PATIENTS) / 8


@pytest.mark.parametrize(
    ("num_slices", "expected"), [(0, 1), (100, 1), (2048, 1), (4096, 2), (752803, 368)]
)
def test_number_of_shards(num_slices: int, expected: int):
    assert shards_for(num_slices, 2048) == expected
