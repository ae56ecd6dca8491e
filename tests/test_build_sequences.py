import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_data import (
    EMBEDDING_DIM,
    GROUP_ID,
    MODEL_ID,
    embedding_of,
    make_experiment,
    make_group,
    make_items,
    write_group_embeddings,
)
from embedding_data import write_embeddings as write

from beam_pipelines import schema, tfrecord
from beam_pipelines.build_sequences import run
from beam_pipelines.embedding_references import SequenceShard, read_references, reference_tasks
from beam_pipelines.errors import UserError
from beam_pipelines.layout import SPLITS
from beam_pipelines.schema import SUBTYPES, Sequence, Slice
from beam_pipelines.sequence_shards import SequenceBuilder
from beam_pipelines.slice_features import SLICE_FEATURES, raw_features
from beam_pipelines.transform_graph import TransformFolder
from trainer.experiment import BASE

SERIES = {
    "train": [
        make_items("t1", 3),
        make_items("t2", 6, spacing_mm=2.5),
        make_items("t3", 1),
        make_items("t4", 5, labelled=False),
    ],
    "validation": [make_items("v1", 5, spacing_mm=9)],
    "test": [make_items("x1", 9, labelled=False), make_items("x2", 2, labelled=False)],
}


def write_all(data_dir: Path, series: dict[str, list[list[Slice]]]) -> Path:
    for split in SPLITS:
        write(data_dir, split, series[split])
    make_experiment(data_dir, BASE)
    return data_dir


def build(data_dir: Path, *flags: str) -> None:
    run(["--data_dir", str(data_dir), "--max_to_keep", "4", *flags])


def folder(data_dir: Path, split: str, model_id: str = MODEL_ID) -> Path:
    return data_dir / "sequences" / model_id / split


def sequences(data_dir: Path, split: str, model_id: str = MODEL_ID) -> list[Sequence]:
    found = []
    for path in sorted(folder(data_dir, split, model_id).glob("*.tfrecord")):
        with path.open("rb") as file:
            found += [schema.decode_sequence(d) for _, d in tfrecord.read_records(file, str(path))]
    return found


def manifest(data_dir: Path, split: str, model_id: str = MODEL_ID) -> dict[str, Any]:
    return json.loads((folder(data_dir, split, model_id) / "manifest.json").read_text())


def transform_folder(data_dir: Path, model_id: str = MODEL_ID) -> Path:
    (found,) = data_dir.glob(f"experiments/{model_id}*/transform")
    return found


def features_by_id(data_dir: Path, split: str, model_id: str = MODEL_ID) -> dict[str, np.ndarray]:
    return {
        image_id: row
        for sequence in sequences(data_dir, split, model_id)
        for image_id, row in zip(sequence.image_ids, sequence.slice_features, strict=True)
        if image_id
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with sequences; tests must not write into it."""
    data_dir = write_all(tmp_path_factory.mktemp("sequences") / "data", SERIES)
    build(data_dir, "--export_npy")
    return data_dir


MEMBERS = [f"{GROUP_ID}-fold{fold}" for fold in range(2)]


@pytest.fixture(scope="module")
def built_group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same slices by a group of two; tests must not write into it."""
    data_dir = tmp_path_factory.mktemp("group") / "data"
    for split in SPLITS:
        write_group_embeddings(data_dir, split, SERIES[split], 2)
    make_group(data_dir, 2)
    build(data_dir, "--model_id", GROUP_ID)
    return data_dir


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "data"))


def test_every_slice_of_every_series_is_in_a_sequence(built: Path):
    for split in SPLITS:
        found = sequences(built, split)
        for series in SERIES[split]:
            mine = [s for s in found if s.patient_id == series[0].patient_id]
            assert [s.start for s in mine] == {9: [0, 2, 4, 5], 6: [0, 2], 5: [0, 1]}.get(
                len(series), [0]
            )
            for sequence in mine:
                kept = series[sequence.start : sequence.start + 4]
                ids = [item.image_id for item in kept]
                assert list(sequence.image_ids) == ids + [""] * (4 - len(ids))
                for row, item in enumerate(kept):
                    embedding, logits = embedding_of(item.image_id)
                    np.testing.assert_array_equal(sequence.embeddings[row], embedding)
                    np.testing.assert_array_equal(sequence.logits[row], logits)
                    if item.label is None:
                        assert sequence.labels is None
                    else:
                        assert sequence.labels is not None
                        assert tuple(sequence.labels[row]) == item.label
        assert {s.patient_id for s in found} == {s[0].patient_id for s in SERIES[split]}


def test_manifests_say_what_is_there(built: Path):
    for split in SPLITS:
        found = manifest(built, split)
        assert found["num_slices"] == sum(map(len, SERIES[split]))
        assert found["num_sequences"] == len(sequences(built, split))
        assert found["num_series"] == len(SERIES[split])
        assert found["settings"]["max_to_keep"] == 4
        assert found["settings"]["embedding_dim"] == EMBEDDING_DIM
        assert found["settings"]["slice_features"] == list(SLICE_FEATURES)


def expected_scale() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the train split's features, by NumPy: (6,) each."""
    parts = [np.stack(list(raw_features(s).values()), 1) for s in SERIES["train"]]
    values = np.concatenate(parts).astype(np.float64)
    return values.mean(0), values.std(0)


def test_features_are_scaled_by_the_train_split(built: Path):
    mean, deviation = expected_scale()
    for split in SPLITS:
        found = features_by_id(built, split)
        for series in SERIES[split]:
            raw = np.stack(list(raw_features(series).values()), 1)
            # A feature that is the same everywhere is only shifted.
            expected = (raw - mean) / np.where(deviation > 0, deviation, 1)
            rows = [found[item.image_id] for item in series]
            np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_label_priors_are_those_of_the_labelled_train_slices(built: Path):
    items = [item for series in SERIES["train"] for item in series]
    labels = np.array([item.label for item in items if item.label is not None])
    found = json.loads((transform_folder(built) / "label_priors.json").read_text())
    assert found == pytest.approx(dict(zip(SUBTYPES, labels.mean(0), strict=True)), rel=1e-6)


def test_other_splits_do_not_touch_what_is_fitted(built: Path, tmp_path: Path):
    other = {
        **SERIES,
        "validation": [make_items("v9", 7, spacing_mm=40)],
        "test": [make_items("x1", 9, spacing_mm=3, labelled=True)],
    }
    data_dir = write_all(tmp_path, other)
    # A fit that was killed has left something behind.
    (graph,) = [p / "transform" / "graph" for p in (data_dir / "experiments").iterdir()]
    (graph / "transform_fn").mkdir(parents=True)
    (graph / "transform_fn" / "saved_model.pb").write_text("half")
    build(data_dir)
    one, two = (
        json.loads((transform_folder(root) / "label_priors.json").read_text())
        for root in (data_dir, built)
    )
    assert one == two
    one, two = features_by_id(data_dir, "train"), features_by_id(built, "train")
    assert one.keys() == two.keys()
    for image_id in one:
        np.testing.assert_array_equal(one[image_id], two[image_id])


def test_the_saved_transform_serves_another_data_root(built: Path, tmp_path: Path):
    """New patients, scored with a model that was trained elsewhere: nothing is fitted anew."""
    write(tmp_path, "test", [make_items("n1", 5, spacing_mm=3, labelled=False)])
    experiment = str(transform_folder(built).parent)
    run(["--data_dir", str(tmp_path), "--model_id", experiment, "--base_data", "test"])
    raw = np.stack(list(raw_features(make_items("n1", 5, spacing_mm=3)).values()), 1)
    mean, deviation = expected_scale()
    expected = (raw - mean) / np.where(deviation > 0, deviation, 1)
    found = features_by_id(tmp_path, "test")
    rows = [found[f"n1-{i}"] for i in range(5)]
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    assert manifest(tmp_path, "test")["settings"]["max_to_keep"] == 60


def test_members_have_sequences_of_their_own_embeddings(built_group: Path):
    for fold, member in enumerate(MEMBERS):
        for split in SPLITS:
            mine = SERIES[split][fold::2] if split == "train" else SERIES[split]
            found = sequences(built_group, split, member)
            assert {s.patient_id for s in found} == {series[0].patient_id for series in mine}
            for sequence in found:
                for row, image_id in enumerate(filter(None, sequence.image_ids)):
                    embedding, logits = embedding_of(image_id, member)
                    np.testing.assert_array_equal(sequence.embeddings[row], embedding)
                    np.testing.assert_array_equal(sequence.logits[row], logits)
            said = manifest(built_group, split, member)
            assert said["num_slices"] == sum(map(len, mine))
            expected = (2, fold) if split == "train" else (1, 0)
            assert (said["settings"]["folds"], said["settings"]["fold"]) == expected


def test_members_share_one_transform_of_the_whole_train_split(built: Path, built_group: Path):
    """It is that of a single model, which sees the same slices; each member has a copy."""
    expected = json.loads((transform_folder(built) / "label_priors.json").read_text())
    for member in MEMBERS:
        found = json.loads(
            (transform_folder(built_group, member) / "label_priors.json").read_text()
        )
        assert found == pytest.approx(expected, rel=1e-6)
        for split in SPLITS:
            single = features_by_id(built, split)
            for image_id, row in features_by_id(built_group, split, member).items():
                np.testing.assert_allclose(row, single[image_id], rtol=1e-5, atol=1e-6)
    files = [
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (transform_folder(built_group, member) for member in MEMBERS)
    ]
    assert files[0] == files[1]


def test_a_member_alone_has_the_transform_of_its_group(built_group: Path, tmp_path: Path):
    data_dir = Path(shutil.copytree(built_group, tmp_path / "data"))
    shutil.rmtree(data_dir / "sequences")
    for member in MEMBERS:
        shutil.rmtree(transform_folder(data_dir, member))
    build(data_dir, "--model_id", MEMBERS[1])
    for member in MEMBERS:
        priors = transform_folder(data_dir, member) / "label_priors.json"
        expected = transform_folder(built_group, member) / "label_priors.json"
        assert json.loads(priors.read_text()) == json.loads(expected.read_text())
    assert not (data_dir / "sequences" / MEMBERS[0]).exists()
    expected_features = features_by_id(built_group, "test", MEMBERS[1])
    for image_id, row in features_by_id(data_dir, "test", MEMBERS[1]).items():
        np.testing.assert_allclose(row, expected_features[image_id], rtol=1e-5, atol=1e-6)


def test_a_group_serves_another_data_root(built_group: Path, tmp_path: Path):
    series = [make_items("n1", 5, spacing_mm=3, labelled=False)]
    write_group_embeddings(tmp_path, "test", series, 2)
    group = f"{built_group}/experiments/{GROUP_ID}"
    run(["--data_dir", str(tmp_path), "--model_id", group, "--base_data", "test"])
    found = [features_by_id(tmp_path, "test", member) for member in MEMBERS]
    assert found[0].keys() == {item.image_id for item in series[0]}
    for image_id, row in found[0].items():
        np.testing.assert_array_equal(row, found[1][image_id])


def test_a_group_needs_the_parts_of_all_its_members(tmp_path: Path):
    write_group_embeddings(tmp_path, "train", SERIES["train"], 2)
    make_group(tmp_path, 2)
    flags = ["--model_id", GROUP_ID, "--base_data", "train"]
    with pytest.raises(UserError, match=r"--export_npy: .*give one member .*: group1-fold0, gr"):
        build(tmp_path, *flags, "--export_npy")
    # A whole split in place of the member's part: some of it the member was trained on.
    write(tmp_path, "train", SERIES["train"], model_id=MEMBERS[1])
    with pytest.raises(UserError, match="not the train split that experiment group1-fold1 was tra"):
        build(tmp_path, *flags)
    shutil.rmtree(tmp_path / "embeddings" / MEMBERS[1])
    with pytest.raises(
        UserError, match=r"group1-fold1/train: no manifest\.json.*--model_id group1 "
    ):
        build(tmp_path, "--model_id", MEMBERS[0], "--base_data", "train")
    assert not (tmp_path / "sequences").exists()


def test_old_arrays(built: Path):
    train, test = sequences(built, "train"), sequences(built, "test")
    found = {path.stem: np.load(path) for path in built.glob("*.npy")}
    assert sorted(found) == [
        "test_embeddings",
        "test_img_ids",
        "train_embeddings",
        "train_labels",
        "train_mask",
    ]
    np.testing.assert_array_equal(found["train_embeddings"], [s.embeddings for s in train])
    no_labels = [[-1] * 6] * 4
    np.testing.assert_array_equal(
        found["train_labels"], [no_labels if s.labels is None else s.labels for s in train]
    )
    np.testing.assert_array_equal(found["train_mask"], [s.mask for s in train])
    np.testing.assert_array_equal(found["test_embeddings"], [s.embeddings for s in test])
    assert found["test_img_ids"].tolist() == [list(s.image_ids) for s in test]
    assert found["train_embeddings"].dtype == np.float32
    assert not list(built.glob("npy.tmp-*"))


def test_a_second_run_uses_transform_and_shards(copy: Path, capsys: pytest.CaptureFixture[str]):
    paths = [*copy.glob("sequences/**/*.tfrecord"), *transform_folder(copy).rglob("*.*")]
    before = {path: path.stat().st_mtime_ns for path in paths if path.is_file()}
    build(copy)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    num_slices = sum(len(series) for split in SERIES.values() for series in split)
    shards = len(list(copy.glob("sequences/**/*.tfrecord")))
    assert capsys.readouterr().err == (
        f"build_sequences: {num_slices} slices in, {num_slices} written, 0 quarantined; "
        f"{shards} shards were there already\n"
    )


def test_another_length_rebuilds(copy: Path):
    build(copy, "--max_to_keep", "6", "--base_data", "train")
    assert {len(s.mask) for s in sequences(copy, "train")} == {6}
    assert {len(s.mask) for s in sequences(copy, "test")} == {4}


def test_a_missing_embedding_is_an_error(copy: Path):
    write(copy, "test", [make_items("x1", 9, labelled=False)[1:]])
    with pytest.raises(
        (UserError, RuntimeError), match="x1-series: 8 embeddings, not one for each"
    ):
        build(copy, "--base_data", "test")
    assert not (folder(copy, "test") / "manifest.json").exists()


def test_progress_is_told_of_every_slice(built: Path, tmp_path: Path):
    copy = Path(shutil.copytree(built / "embeddings", tmp_path / "embeddings")).parent
    (task,) = reference_tasks(
        "train", [shard["name"] for shard in manifest(built, "train")["shards"]]
    )
    batches: dict[SequenceShard, list[bytes]] = {}
    for key, batch in read_references(task, str(copy), MODEL_ID):
        batches.setdefault(key, []).append(batch)
    folder = TransformFolder(str(transform_folder(built)))
    builder = SequenceBuilder(str(copy), MODEL_ID, {"train": "f"}, folder, "t", 4)
    builder.setup()
    calls: list[tuple[int, int]] = []
    for item in batches.items():
        builder.build(item, lambda *counts: calls.append(counts))
    assert sorted(calls) == sorted((len(series), 0) for series in SERIES["train"])


def test_what_is_missing_is_a_user_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"0 base experiments: none; train one first: python -m"):
        build(tmp_path)
    make_experiment(tmp_path, BASE)
    with pytest.raises(UserError, match=r"no base experiment '7'; there are: base1; give one of"):
        build(tmp_path, "--model_id", "7")
    with pytest.raises(
        UserError, match=r"no manifest\.json.*run python -m beam_pipelines\.extract"
    ):
        build(tmp_path)
    write(tmp_path, "test", SERIES["test"])
    with pytest.raises(UserError, match=r"base1/train: no manifest\.json"):
        build(tmp_path, "--base_data", "test")
    write(tmp_path, "train", SERIES["train"], examples_fingerprint="another")
    with pytest.raises(UserError, match="not the train split that experiment base1 was trained on"):
        build(tmp_path, "--base_data", "test")
    assert not list(tmp_path.glob("experiments/*/transform"))
    assert not (tmp_path / "sequences").exists()
