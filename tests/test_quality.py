import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_pipelines.errors import UserError
from benchmarks import (
    quality,
    quality_lines,
    quality_metrics,
    quality_report,
    quality_rows,
    quality_tasks,
)
from benchmarks.machine import Machine
from benchmarks.quality_data import JUDGE, TRAIN, Workspace
from benchmarks.quality_rows import FULL, QUICK, ROWS, config_of, key_of, model_id_of
from configs import ExamplesConfig
from configs.loader import to_mapping
from trainer import calibration, metrics

MACHINE = Machine("A CPU, 2 cores, 24 GB of memory", "Linux, Python 3.11.1")


def make_result(row: str, seed: int, loss: float, **values: Any) -> dict[str, Any]:
    return {
        "row": row,
        "seed": seed,
        "key": key_of(ROWS[row], FULL, seed),
        "code": "code-1",
        "date": "2026-01-02",
        "seconds": 60.0,
        "config": to_mapping(config_of(ROWS[row], FULL, seed)),
        "loss": loss,
        "ece_any": 0.01,
        "ece_mean": 0.03,
        "auc_any": 0.9,
        **values,
    }


def make_results(losses: dict[str, list[float]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {
        (row, seed): make_result(row, seed, loss)
        for row, values in losses.items()
        for seed, loss in enumerate(values, start=1)
    }


def test_rows_refer_to_earlier_rows_and_to_settings_that_there_are():
    seen: set[str] = set()
    for row in quality_rows.ALL_ROWS:
        assert set(row.needs) <= seen
        assert row.stage in quality_rows.STAGES
        seen.add(row.name)
        changed = config_of(row, FULL, 1)
        for name, value in row.changes.items():
            section, setting = name.split(".")
            assert getattr(getattr(changed, section), setting) == value
    assert len(seen) == len(quality_rows.ALL_ROWS) == len(ROWS)


def test_the_plain_row_does_not_follow_the_defaults():
    """Every setting that a row changes is spelled out in the plain row."""
    source = inspect.getsource(quality_rows.plain_config)
    for row in quality_rows.ALL_ROWS:
        for name in row.changes:
            assert f"{name.split('.')[1]}=" in source, name


def test_only_adds_what_a_row_needs():
    names = [row.name for row in quality_rows.choose_rows(["folds_seq"])]
    assert names == ["plain", "seq_plain", "folds_base", "folds_seq"]
    assert len(quality_rows.choose_rows(None)) == len(ROWS)
    with pytest.raises(UserError, match="--only emma: no such row; there are: plain, "):
        quality_rows.choose_rows(["emma"])


def test_keys_follow_the_settings_that_matter():
    plain, ema, lstm = ROWS["plain"], ROWS["ema"], ROWS["seq_plain"]
    assert len({key_of(plain, FULL, 1), key_of(plain, FULL, 2), key_of(ema, FULL, 1)}) == 3
    longer = quality_rows.Sizes(sequence_epochs=31)
    assert key_of(plain, FULL, 1) == key_of(plain, longer, 1)
    assert key_of(lstm, FULL, 1) != key_of(lstm, longer, 1)
    assert model_id_of(lstm, FULL, 1) == f"seq-plain-{key_of(lstm, FULL, 1)}"


def test_seed_is_that_of_both_models_and_judges_are_other_patients():
    config = config_of(ROWS["plain"], FULL, 3)
    assert (config.base.seed, config.sequence.seed) == (3, 3)
    seeds = (1, 2, 3)
    assert not {quality_rows.judge_seed(seed) for seed in seeds} & set(seeds)


def test_judge_set_is_nearly_all_validation():
    examples = quality_rows.judge_examples(ExamplesConfig(channels="both", image_size=64))
    assert (examples.val_ratio, examples.channels, examples.image_size) == (0.98, "both", 64)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.9, 0.95, 0.98], "better"),
        ([0.9, 0.9, 1.001], "no different"),
        ([0.995, 0.996, 0.997], "no different"),
        ([1.1, 1.02, 1.03], "worse"),
        ([1.1, 0.999, 1.2], "no different"),
        ([1.001, 1.002, 1.003], "no different"),
        ([0.5], "one seed"),
        ([], "one seed"),
    ],
)
def test_verdicts(ratios: list[float], expected: str):
    assert quality_lines.verdict(ratios) == expected


def test_ratios_are_of_the_same_seed():
    results = make_results({"plain": [0.2, 0.4], "ema": [0.1, 0.3], "seq_plain": [0.1]})
    lines = quality_lines.aggregate(results)
    assert lines["ema"].ratios == pytest.approx((0.5, 0.75))
    assert lines["seq_plain"].ratios == pytest.approx((0.5,))
    assert lines["plain"].ratios == ()
    assert lines["plain"].verdict == ""


def test_spread():
    assert quality_lines.spread([0.1, 0.2, 0.3], 2) == "0.20 ± 0.10"
    assert quality_lines.spread([0.1]) == "0.1000"
    assert quality_lines.spread([]) == "-"


def test_default_that_follows():
    losses = {
        "plain": [0.2, 0.2],
        "ema": [0.1, 0.1],
        "no_augment": [0.3, 0.3],
        "seq_plain": [0.1, 0.1],
        "scaled_base": [0.2, 0.2],
        "both": [0.1, 0.1],
        "both_crop": [0.2, 0.2],
    }
    lines = quality_lines.aggregate(make_results(losses))
    default = {
        "base": {"ema_decay": 0.0, "augment": True},
        "examples": {"channels": "windows", "crop": "none"},
    }
    follows = {name: quality_lines.follows(line, default) for name, line in lines.items()}
    assert follows == {
        "plain": "-",
        "ema": "base.ema_decay 0.999, not 0.0",
        "no_augment": "base.augment true",
        "seq_plain": "with sequence model",
        "scaled_base": "without temperature scaling",
        "both": "examples.channels both, not windows",
        # It differs from its reference, which has six channels too, by the crop alone.
        "both_crop": "examples.crop none",
    }


def render(results: dict[tuple[str, int], dict[str, Any]], code: str = "code-1") -> str:
    use = {"patients": 10, "slices": 1234, "positive": 99}
    sets = {1: {"train": use, "validation": use, "judge": use}}
    return quality_report.render(results, sets, FULL, MACHINE, code, "python -m some.thing")


def cells_of(text: str, first: str) -> list[str]:
    line = next(x for x in text.splitlines() if x.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_report_has_every_measured_row_and_names_the_others():
    losses = {"plain": [0.2, 0.2], "ema": [0.1, 0.1], "seq_plain": [0.15, 0.16]}
    text = render(make_results(losses))
    assert cells_of(text, "ema")[3:6] == ["0.1000 ± 0.0000", "plain", "0.500 ± 0.000"]
    assert cells_of(text, "1, judge 1001")[1] == "10 / 1,234 / 99"
    assert "phantoms say nothing about patients" in text
    assert "python -m some.thing" in text
    assert MACHINE.hardware in text
    assert "Not measured: prior, bin_loss, " in text
    assert "other code" not in text
    assert "Made by other code than the present: ema, plain, seq_plain." in render(
        make_results(losses), "code-2"
    )


def test_goals_are_met_by_means():
    results = make_results({"plain": [0.2, 0.2], "seq_plain": [0.15, 0.17]})
    text = render(results)
    assert cells_of(text, "loss of seq_plain / plain at most 0.80")[1:] == [
        "0.800 ± 0.071",
        "yes",
    ]
    assert cells_of(text, "ECE of any, plain, below 0.02")[2] == "yes"
    assert cells_of(text, "mean ECE, seq_plain, below 0.02")[2] == "no"


def test_calibration_shows_before_and_after():
    results = make_results({"plain": [0.2, 0.2], "scaled_base": [0.19, 0.19]})
    for seed in (1, 2):
        results["scaled_base", seed]["ece_any"] = 0.005
    cells = cells_of(render(results), "scaled_base")
    assert cells[1] == "plain"
    assert cells[2:6] == [
        "0.2000 ± 0.0000",
        "0.1900 ± 0.0000",
        "0.0100 ± 0.0000",
        "0.0050 ± 0.0000",
    ]
    assert cells[-1] == "with temperature scaling"


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (20_000, 6))
    labels = (rng.uniform(size=logits.shape) < metrics.sigmoid(logits)).astype(int)
    tempered = calibration.fit_temperature(labels, metrics.sigmoid(3 * logits))
    assert tempered == pytest.approx(3, rel=0.03)
    before = quality_metrics.figures(labels, 3 * logits)
    after = quality_metrics.figures(labels, logits)
    assert after["loss"] < before["loss"] and after["ece_mean"] < 0.02 < before["ece_mean"]
    assert after["auc_any"] == pytest.approx(before["auc_any"])
    assert 0.8 < after["auc_any"] < 1


def save_result(workspace: Workspace, result: dict[str, Any]) -> None:
    path = workspace.result(result["row"], result["seed"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))


def test_only_rows_of_present_settings_count_as_made(tmp_path: Path):
    workspace = Workspace(tmp_path, FULL)
    save_result(workspace, make_result("plain", 1, 0.2))
    save_result(workspace, make_result("plain", 2, 0.2, key="other"))
    rows = quality_rows.choose_rows(["plain"])
    assert quality.missing(workspace, rows, [1, 2, 3], None) == [(rows[0], 2), (rows[0], 3)]
    assert quality.missing(workspace, rows, [1], "code-1") == []
    assert quality.missing(workspace, rows, [1], "code-2") == [(rows[0], 1)]
    assert list(quality.collect(workspace, [1, 2])) == [("plain", 1)]


def test_phases_make_first_what_others_need(tmp_path: Path):
    workspace = Workspace(tmp_path, QUICK)
    rows = quality_rows.choose_rows(["both", "folds_seq", "tta_flip", "scaled_seq"])
    found = quality_tasks.phases(workspace, quality.missing(workspace, rows, [1], None))
    assert [[name for name, _, _ in tasks] for tasks in found] == [
        ["draw_train", "draw_judge"],
        [
            f"build_{name}-{channels}-none"
            for channels in ("windows", "both")
            for name in (TRAIN, JUDGE)
        ],
        ["plain", "folds_base", "both"],
        ["sequences_folds_base", "sequences_plain", "tta_flip"],
        ["folds_seq", "seq_plain"],
        ["scaled_seq"],
    ]


def fail(workspace: Workspace, seed: int) -> None:
    print("before it failed")
    raise UserError(f"nothing for {seed}")


def succeed(workspace: Workspace, seed: int) -> None:
    workspace.result("done", seed).write_text("done")


def test_a_task_that_fails_stops_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    workspace = Workspace(tmp_path, QUICK)
    (tmp_path / "results").mkdir()
    tasks: list[quality_tasks.Task] = [
        ("bad", fail, (workspace, 7)),
        ("good", succeed, (workspace, 7)),
    ]
    assert quality_tasks.run_phase(workspace, tasks, workers=1) == ["bad seed 7"]
    assert workspace.result("done", 7).read_text() == "done"
    assert "UserError: nothing for 7" in capfd.readouterr().err
    assert workspace.log("bad", 7).read_text() == "before it failed\n"


def test_wrong_flags_are_refused():
    with pytest.raises(UserError, match="--workers: received 0; give a number from 1"):
        quality.parse_args(["--workers", "0"])


def test_listing_loads_no_tensorflow():
    code = (
        "import sys; from benchmarks import quality; quality.parse_args([]);"
        "print(*({'apache_beam', 'tensorflow', 'keras', 'cv2'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
