"""The drawn sets of the quality comparison: made once for each seed, and kept.

build/quality/full/seed-1/train.zip              an archive, drawn
build/quality/full/seed-1/train-windows-none/    its data root: described and built
build/quality/full/results/default-seed1.json    what came out; .npz: labels and logits
"""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_pipelines import schema
from beam_pipelines.errors import require
from beam_pipelines.layout import DataLayout
from benchmarks.bench import copy_described
from benchmarks.quality_rows import Sizes, judge_examples, judge_seed
from configs import Config, ExamplesConfig
from configs.loader import to_mapping

TRAIN, JUDGE = SETS = ("train", "judge")
_MADE = "made.json"


@dataclass(frozen=True)
class Workspace:
    """Where the comparison keeps its data.

    Attributes:
        folder: of one choice of sizes.
        sizes: how much is drawn.
    """

    folder: Path
    sizes: Sizes

    def seed_folder(self, seed: int) -> Path:
        """Archives and data roots of a seed."""
        return self.folder / f"seed-{seed}"

    def archive(self, seed: int, name: str) -> Path:
        """The archive of the train or the judge set."""
        return self.seed_folder(seed) / f"{name}.zip"

    def root(self, seed: int, name: str, examples: ExamplesConfig) -> Path:
        """The data root of a set, built with some settings; other images are another root."""
        return self.seed_folder(seed) / f"{name}-{examples.channels}-{examples.crop}"

    def result(self, row: str, seed: int) -> Path:
        """What came out of a row."""
        return self.folder / "results" / f"{row}-seed{seed}.json"

    def log(self, name: str, seed: int) -> Path:
        """What the stages printed while a row was made."""
        return self.folder / "logs" / f"{name}-seed{seed}.log"


def _plan(workspace: Workspace, seed: int, name: str) -> dict[str, int]:
    sizes = workspace.sizes
    if name == TRAIN:
        return {"patients": sizes.train_patients, "seed": seed}
    return {"patients": sizes.judge_patients, "seed": judge_seed(seed)}


def draw(workspace: Workspace, seed: int, name: str) -> None:
    """Draws the archive of a set, unless it is there."""
    from beam_pipelines import make_demo_archive

    archive, plan = workspace.archive(seed, name), _plan(workspace, seed, name)
    made = archive.with_suffix(".json")
    if _read(made) == plan and archive.exists():
        return
    flags = [f"--{key}={value}" for key, value in plan.items()]
    archive.parent.mkdir(parents=True, exist_ok=True)
    make_demo_archive.main(
        ["--output", str(archive), "--overwrite", "--test_fraction=0", "--workers=1", *flags]
    )
    made.write_text(json.dumps(plan))


def build_root(workspace: Workspace, seed: int, name: str, config: Config) -> None:
    """Describes and builds a set for the models of a config, unless it is there."""
    from beam_pipelines import build_examples, extract_metadata, process_labels

    examples = config.examples if name == TRAIN else judge_examples(config.examples)
    root = workspace.root(seed, name, examples)
    archive, plan = str(workspace.archive(seed, name)), _plan(workspace, seed, name)
    made = {**plan, "format": schema.FORMAT_VERSION, "examples": to_mapping(examples)}
    if _read(root / _MADE) == made:
        return
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    place = ["--archive", archive, "--data_dir", str(root)]
    described = workspace.root(seed, name, ExamplesConfig())
    if described != root and (described / _MADE).exists():
        copy_described(described, root)
        (root / _MADE).unlink()
    else:
        extract_metadata.run(place)
        process_labels.run(place)
    settings = root / "config.yaml"
    settings.write_text(json.dumps({"examples": to_mapping(examples)}))
    build_examples.run([*place, "--config", str(settings)])
    _check_apart(workspace, seed)
    (root / _MADE).write_text(json.dumps(made))


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _check_apart(workspace: Workspace, seed: int) -> None:
    """Raises UserError where a patient is in the train and in the judge set."""
    patients = []
    for name in SETS:
        path = DataLayout(str(workspace.root(seed, name, ExamplesConfig()))).metadata_csv("train")
        if not Path(path).exists():
            return
        with Path(path).open(newline="") as file:
            patients.append({row["PatientID"] for row in csv.DictReader(file)})
    both = patients[0] & patients[1]
    require(
        not both,
        f"seed {seed}: {len(both)} patients are in the train and in the judge set, first "
        f"{min(both, default='')}; give another seed",
    )


def describe_sets(workspace: Workspace, seed: int, config: Config) -> dict[str, dict[str, int]]:
    """Patients, slices and positive slices of what models train on, are chosen by and judged on."""
    from trainer import shard_files

    train_root = DataLayout(str(workspace.root(seed, TRAIN, config.examples)))
    judge_root = DataLayout(str(workspace.root(seed, JUDGE, config.examples)))
    folders = {
        "train": train_root.examples("train"),
        "validation": train_root.examples("validation"),
        "judge": judge_root.examples("validation"),
    }
    counted = {}
    for use, path in folders.items():
        folder = shard_files.read_folder(path, "make quality")
        counts = {"patients": folder.num_patients, "slices": folder.num_labelled}
        counted[use] = {**counts, "positive": folder.label_counts["any"]}
    return counted
