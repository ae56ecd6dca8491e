"""launch/local.sh from an archive to a prediction CSV, undisturbed and killed in every stage."""

import csv
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from beam_pipelines import demo_archive, demo_plan, storage
from beam_pipelines.layout import DataLayout
from beam_pipelines.schema import SUBTYPES
from beam_pipelines.shards import read_manifest
from beam_pipelines.slice_references import read_references
from configs import load_config, to_yaml
from trainer.experiment import LSTM
from trainer.registry import find_base_models, find_experiment

ROOT = Path(__file__).parent.parent
STAGES = (
    "beam_pipelines.extract_metadata",
    "beam_pipelines.process_labels",
    "beam_pipelines.build_examples",
    "trainer.train_base",
    "beam_pipelines.extract_embeddings",
    "beam_pipelines.build_sequences",
    "trainer.train_sequence",
    "trainer.evaluate",
    "beam_pipelines.predict",
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "tiny.zip"
    demo_archive.write_archive(demo_plan.plan_demo(10, seed=3), str(path), workers=2)
    return path


def start(
    archive: Path, data_dir: Path, config: str = "configs/tiny.yaml"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *("launch/local.sh", "--archive", str(archive), "--data_dir", str(data_dir)),
            *("--config", config),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return errors


def kill_in(stage: str, process: subprocess.Popen[str], delay: float) -> None:
    """Kills the script and its children some time after a stage has begun."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"== {stage} "):
            break
    else:
        raise AssertionError(f"{stage} never began")
    # Nobody may block on a full pipe while we wait.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def check_predictions(data_dir: Path) -> None:
    layout = DataLayout(str(data_dir))
    expected = {
        f"{reference.image_id}_{subtype}"
        for reference in read_references(layout, "test")
        for subtype in SUBTYPES
    }
    with (data_dir / "output2.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(expected)
    assert {row["ID"] for row in rows} == expected
    assert all(0 < float(row["Label"]) < 1 for row in rows)


def shard_times(data_dir: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in data_dir.rglob("shard-*.tfrecord")}


@pytest.mark.timeout(600)
def test_from_archive_to_predictions(archive: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    errors = finish(start(archive, data_dir))
    check_predictions(data_dir)
    assert re.findall(r"^== (\S+)", errors, re.MULTILINE) == list(STAGES)
    assert "build_examples: " in errors and ", 1 quarantined" in errors
    summary = subprocess.run(
        [sys.executable, "-m", "launch.summary", "--data_dir", str(data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 quarantined" in summary.stdout
    assert f"predictions     {data_dir}/output2.csv" in summary.stdout
    assert not list(tmp_path.rglob("*.tmp-*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_script_runs_a_group_of_folds(archive: Path, tmp_path: Path) -> None:
    tiny = load_config("configs/tiny.yaml")
    config = dataclasses.replace(
        tiny,
        examples=dataclasses.replace(tiny.examples, slices_per_shard=32),
        # A fold of so few patients may have no hemorrhage.
        base=dataclasses.replace(tiny.base, folds=2, positive_share=0.0),
    )
    (tmp_path / "folds.yaml").write_text(to_yaml(config))
    data_dir = tmp_path / "data"
    finish(start(archive, data_dir, str(tmp_path / "folds.yaml")))
    check_predictions(data_dir)
    members = find_base_models(str(data_dir))
    assert [member.fold() for member in members] == [(2, 0), (2, 1)]
    layout = DataLayout(str(data_dir))
    held = [read_manifest(layout.sequences(member.model_id, "train"), "") for member in members]
    train = read_manifest(layout.examples("train"), "")
    assert sum(part["num_slices"] for part in held) == train["num_slices"]
    lstm = find_experiment(str(data_dir), LSTM)
    assert lstm.record()["base_model_ids"] == [member.model_id for member in members]
    # A second start finds everything done.
    before = shard_times(data_dir)
    finish(start(archive, data_dir, str(tmp_path / "folds.yaml")))
    assert shard_times(data_dir) == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("delay", [1.0, 4.0])
def test_killed_in_every_stage_it_ends_as_an_undisturbed_run(
    archive: Path, tmp_path: Path, delay: float
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for data_dir in (undisturbed, killed):
        data_dir.mkdir()
        (data_dir / "launch_ids").write_text("base_id=1\nsequence_id=2\n")
    finish(start(archive, undisturbed))
    for stage in STAGES:
        before = shard_times(killed)
        kill_in(stage, start(archive, killed), delay)
        after = shard_times(killed)
        assert {path: after[path] for path in before} == before, f"{stage} redid shards"
    finish(start(archive, killed))
    check_predictions(killed)
    for path in sorted(undisturbed.rglob("shard-*")):
        name = path.relative_to(undisturbed)
        if name.parts[0] in ("embeddings", "sequences", "predictions"):
            # What a model made of slices may differ in its last digit with the order of threads,
            # and its receipt names the model file, which holds the time of its making.
            if not path.name.endswith(".json"):
                assert (killed / name).stat().st_size == path.stat().st_size, name
        else:
            assert (killed / name).read_bytes() == path.read_bytes(), name
    names = {str(p.relative_to(undisturbed)) for p in undisturbed.rglob("shard-*")}
    assert {str(p.relative_to(killed)) for p in killed.rglob("shard-*")} == names
    assert storage.glob(f"{killed}/**/*.tmp-*") == []
