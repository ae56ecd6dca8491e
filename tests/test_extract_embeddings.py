import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_data import CONFIG, GROUP_ID, MODEL_ID, make_experiment, make_group

from beam_pipelines import build_examples, schema, tfrecord
from beam_pipelines.embeddings import EmbeddingBuilder, example_shards, file_fingerprint
from beam_pipelines.errors import UserError
from beam_pipelines.extract_embeddings import run
from beam_pipelines.layout import SPLITS, DataLayout
from beam_pipelines.predictions import PredictionBuilder, shards_to_score
from beam_pipelines.shards import totals_of
from trainer import shard_files

SETTINGS = [
    "--image_size=40",
    "--image_format=png",
    "--channels=windows",
    "--val_ratio=0.4",
    "--slices_per_shard=8",
]


@pytest.fixture(scope="module")
def data_dir(archive: Path, described: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with examples, an untrained base model and its embeddings."""
    from trainer.base_model import build_base_model
    from trainer.experiment import BASE
    from trainer.model_files import save_model

    data_dir = Path(shutil.copytree(described, tmp_path_factory.mktemp("embeddings") / "data"))
    build_examples.run(["--archive", str(archive), "--data_dir", str(data_dir), *SETTINGS])
    experiment = make_experiment(data_dir, BASE)
    save_model(build_base_model(CONFIG.base, image_size=40), experiment.model_file)
    run(["--data_dir", str(data_dir)])
    return data_dir


@pytest.fixture(scope="module")
def group(archive: Path, described: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with examples in more shards, an untrained group of two and its embeddings."""
    root = Path(shutil.copytree(described, tmp_path_factory.mktemp("group") / "data"))
    flags = [*SETTINGS[:-2], "--val_ratio=0.2", "--slices_per_shard=2"]
    build_examples.run(["--archive", str(archive), "--data_dir", str(root), *flags])
    write_group(root, root)
    run(["--data_dir", str(root), "--model_id", GROUP_ID])
    return root


def write_group(root: Path, examples: Path) -> None:
    """A group that says that it was trained on the examples of a data root."""
    from trainer.base_model import build_base_model
    from trainer.model_files import save_model

    fingerprints = {"train": json_of(examples / "train")["fingerprint"]}
    for member in make_group(root, 2, data_fingerprints=fingerprints):
        save_model(build_base_model(CONFIG.base, image_size=40), member.model_file)


def json_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def slices(folder: Path) -> list[schema.Slice]:
    return [schema.decode_slice(record)[0] for record in records(folder)]


def records(folder: Path) -> list[bytes]:
    found = []
    for path in sorted(folder.glob("*.tfrecord")):
        with path.open("rb") as file:
            found += [data for _, data in tfrecord.read_records(file, str(path))]
    return found


def test_every_example_has_what_the_model_makes_of_it(data_dir: Path):
    from trainer.base_model import embedding_model
    from trainer.model_files import load_model

    (model_file,) = data_dir.glob("experiments/*/model.keras")
    model = embedding_model(load_model(str(model_file)))
    for split in SPLITS:
        examples = records(data_dir / split)
        found = records(data_dir / "embeddings" / MODEL_ID / split)
        images = np.stack([schema.parse_example(r, 40)["image"].numpy() for r in examples])
        embeddings, logits = model.predict(images, verbose=0)
        assert [schema.decode_embedding(r)[0] for r in found] == [
            schema.decode_slice(r)[0] for r in examples
        ]
        for record, embedding, row in zip(found, embeddings, logits, strict=True):
            _, found_embedding, found_logits = schema.decode_embedding(record)
            np.testing.assert_allclose(found_embedding, embedding, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(found_logits, row, rtol=1e-3, atol=1e-4)


def test_manifests_carry_the_examples_counts(data_dir: Path):
    for split in SPLITS:
        examples, found = (
            json.loads((folder / split / "manifest.json").read_text())
            for folder in (data_dir, data_dir / "embeddings" / MODEL_ID)
        )
        for key in ("num_slices", "num_labelled", "num_patients", "num_series", "label_counts"):
            assert found[key] == examples[key]
        assert found["settings"]["examples_fingerprint"] == examples["fingerprint"]
        assert found["settings"]["embedding_dim"] == 128


def test_a_second_run_uses_every_shard(data_dir: Path, capsys: pytest.CaptureFixture[str]):
    paths = list(data_dir.glob("embeddings/**/*.tfrecord"))
    before = {path: path.stat().st_mtime_ns for path in paths}
    run(["--data_dir", str(data_dir), "--base_data", "train", "test"])
    assert {path: path.stat().st_mtime_ns for path in paths} == before
    assert " shards were there already\n" in capsys.readouterr().err


def test_progress_is_told_of_every_batch(data_dir: Path, tmp_path: Path):
    """Of embeddings and of the base model's predictions alike."""
    (experiment,) = map(str, data_dir.glob("experiments/base1*"))
    examples = str(data_dir / "test")
    embed = EmbeddingBuilder(str(data_dir), experiment, "another", "f", "none")
    predict = PredictionBuilder(
        str(data_dir), "base", (experiment,), (examples,), "f", 1.0, str(tmp_path)
    )
    embed.setup()
    predict.setup()
    embed._scorer.batch_size = predict._scorers[0].batch_size = 3
    calls: list[tuple[int, int]] = []
    for builder, tasks in (
        (embed, example_shards(DataLayout(str(data_dir)), ["test"])),
        (predict, shards_to_score([examples], "")),
    ):
        for task in tasks:
            calls.clear()
            receipt = builder.build(task, lambda *counts: calls.append(counts))
            whole, rest = divmod(receipt["num_slices"], 3)
            assert calls == [(3, 0)] * whole + [(rest, 0)] * (rest > 0)


def test_members_share_out_the_train_split_and_see_all_of_the_others(group: Path):
    members = [group / "embeddings" / f"{GROUP_ID}-fold{fold}" for fold in range(2)]
    for split in ("validation", "test"):
        for member in members:
            assert slices(member / split) == slices(group / split)
    found = [slices(member / "train") for member in members]
    assert all(found)
    ids = sorted(item.image_id for part in found for item in part)
    assert ids == sorted(item.image_id for item in slices(group / "train"))
    # What a member embeds is what its training leaves out.
    train = shard_files.read_folder(str(group / "train"), "")
    for fold, part in enumerate(found):
        trained_on = shard_files.without_fold(train, 2, fold)
        seen = {schema.decode_slice(record)[0].patient_id for record in trained_on.records()}
        assert seen
        assert not seen & {item.patient_id for item in part}


def test_the_manifests_of_members_add_up(group: Path):
    examples = json_of(group / "train")
    assert len(examples["shards"]) > 2
    parts = [json_of(group / "embeddings" / f"{GROUP_ID}-fold{k}" / "train") for k in range(2)]
    for key in ("num_slices", "num_labelled", "num_patients", "num_series"):
        assert sum(part[key] for part in parts) == examples[key]
    for name, count in examples["label_counts"].items():
        assert sum(part["label_counts"][name] for part in parts) == count
    for fold, part in enumerate(parts):
        held = slices(group / "embeddings" / f"{GROUP_ID}-fold{fold}" / "train")
        assert part["num_slices"] == len(held)
        assert part["num_patients"] == len({item.patient_id for item in held})
        assert (part["settings"]["folds"], part["settings"]["fold"]) == (2, fold)
        assert part["settings"]["tta"] == "none"


def test_a_second_run_of_a_group_uses_every_shard(group: Path, capsys: pytest.CaptureFixture[str]):
    paths = list(group.glob("embeddings/**/*.tfrecord"))
    before = {path: path.stat().st_mtime_ns for path in paths}
    run(["--data_dir", str(group)])
    assert {path: path.stat().st_mtime_ns for path in paths} == before
    assert capsys.readouterr().err.count(" shards were there already\n") == 2


def test_another_data_root_is_unseen_by_every_member(group: Path, data_dir: Path, tmp_path: Path):
    root = Path(shutil.copytree(data_dir / "train", tmp_path / "train")).parent
    manifest = {**json_of(root / "train"), "fingerprint": "another"}
    (root / "train" / "manifest.json").write_text(json.dumps(manifest))
    model = f"{group}/experiments/{GROUP_ID}"
    run(["--data_dir", str(root), "--model_id", model, "--base_data", "train"])
    for fold in range(2):
        folder = root / "embeddings" / f"{GROUP_ID}-fold{fold}" / "train"
        assert slices(folder) == slices(root / "train")
        assert json_of(folder)["num_slices"] == manifest["num_slices"]
        assert json_of(folder)["settings"]["folds"] == 1


def test_another_augmentation_makes_other_embeddings(data_dir: Path, tmp_path: Path):
    (experiment,) = data_dir.glob("experiments/base1*")
    (task, *_) = example_shards(DataLayout(str(data_dir)), ["test"])
    builders = [
        EmbeddingBuilder(str(data_dir), str(experiment), "tta", "f", tta)
        for tta in ("none", "none", "flip")
    ]
    found = []
    for builder in builders:
        builder.setup()
        found.append(builder.build(task))
    assert [receipt.get("reused", False) for receipt in found] == [False, True, False]


def test_totals_of_no_shards():
    assert totals_of([])["num_slices"] == 0
    assert totals_of([])["label_counts"] == dict.fromkeys(schema.SUBTYPES, 0)


def test_the_models_bytes_are_its_fingerprint(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 3_000_000)
    (tmp_path / "c").write_bytes(b"x" * 2_999_999 + b"y")
    a, b, c = (file_fingerprint(str(tmp_path / name)) for name in "abc")
    assert a == b != c


def test_what_is_missing_is_a_user_error(data_dir: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"train: no manifest\.json, .*; run python -m beam_pip"):
        run(["--data_dir", str(tmp_path)])
    with pytest.raises(UserError, match=r"no base experiment 'x'; there are: base1; give one"):
        run(["--data_dir", str(data_dir), "--model_id", "x"])


def test_examples_that_show_slices_in_another_way_are_refused(
    archive: Path, described: Path, data_dir: Path, tmp_path: Path
):
    other = Path(shutil.copytree(described, tmp_path / "other"))
    flags = ["--archive", str(archive), "--data_dir", str(other), *SETTINGS]
    build_examples.run([*flags, "--channels=neighbours"])
    model = next((data_dir / "experiments").glob("base1_*"))
    with pytest.raises(UserError, match=r"train: channels is neighbours, but .* on windows; run"):
        run(["--data_dir", str(other), "--model_id", str(model)])
    assert not (other / "embeddings").exists()
