import io
import json
import math
import subprocess
import sys
import zipfile
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path

import pydicom
import pytest

from beam_pipelines.archive import open_archive
from beam_pipelines.demo_archive import ROOT
from beam_pipelines.errors import UserError
from benchmarks import report, run, slice_archive, start_lines, synthetic_series
from benchmarks import slice_archive_sizes as sizes
from benchmarks.arithmetic import ratio, slope
from benchmarks.bench import Bench, Job, Runs
from benchmarks.lines import Goal, Row, all_lines, make_row, number
from benchmarks.machine import Machine
from benchmarks.measure import RunError, Usage, run_measured

MACHINE = Machine("A CPU, 2 cores, 24 GB of memory", "Linux, Python 3.11.1")
NUM_SLICES = 40


def make_usage(**values: float | str) -> Usage:
    return replace(Usage(2.5, 4.0, 0.5, 0.25, "2026-01-02T03:04:05", ""), **values)


def row(name: str, figure: float = 1.0) -> Row:
    return make_row(
        name,
        "what it is",
        figure=number(figure, "ms"),
        usage=make_usage(),
        goal=Goal("ratio", at_most=1.05),
        judged=[figure],
        reference="2 ms",
        ratio=0.5,
        note="100 slices",
    )


def test_slope_leaves_start_up_out():
    assert slope([3.0 + 100 * 0.01, 3.0 + 500 * 0.01], [100, 500]) == pytest.approx(0.01)


def test_slope_of_a_run_that_was_not_dearer_is_no_number():
    assert math.isnan(slope([3.0, 2.9], [100, 500]))
    assert math.isnan(ratio(slope([3.0, 2.9], [100, 500]), 1.0))


def test_slope_refuses_sizes_that_do_not_grow():
    with pytest.raises(ValueError, match="no slope from 5 to 5"):
        slope([1.0, 2.0], [5, 5])


def test_runs_count_the_least_time_and_the_largest_memory():
    usages = [make_usage(cpu_seconds=4.0, peak_tree_gb=0.5), make_usage(cpu_seconds=5.0)]
    usages += [make_usage(cpu_seconds=6.0, peak_tree_gb=0.9)]
    runs = Runs(tuple(usages))
    assert runs.cpu == 4.0
    assert (runs.usage.cpu_seconds, runs.usage.peak_tree_gb) == (4.0, 0.9)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1464.2, "1,464 s"),
        (123456.0, "123,456 s"),
        (19.06, "19.1 s"),
        (0.01234, "0.0123 s"),
        (0.0, "0 s"),
        (math.nan, "lost in noise s"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str):
    expected = "lost in noise" if math.isnan(value) else text
    assert number(value, "s") == expected


def test_goals():
    assert str(Goal("rate", at_least=700, unit=" slices/s")) == "rate at least 700 slices/s"
    assert Goal("ratio", at_most=1.05).met([1.05]) == "yes"
    assert Goal("ratio", at_most=1.05).met([1.0, 1.06]) == "no"
    assert Goal("ratio", at_least=0.9, at_most=1.1).met([0.8]) == "no"
    assert Goal("ratio", at_least=0.9).met([math.nan]) == "no"


def test_row_without_a_goal_is_not_judged():
    made = make_row("a.b", "what", figure="1 s", usage=make_usage())
    assert (made.goal, made.met, made.ratio) == ("", "-", "")


def test_table_gives_its_rows_back():
    rows = [row("a.x"), row("b.y", 1234.5)]
    text = report.render_table(rows)
    lengths = {len(line) for line in text.splitlines()}
    assert len(lengths) == 1
    assert report.parse_table("# Title\n\nprose | with a bar\n\n" + text) == rows


def test_table_refuses_what_would_break_it():
    with pytest.raises(ValueError, match="without"):
        report.render_table([replace(row("a.x"), note="a | b")])


def test_results_keep_rows_of_lines_that_did_not_run(tmp_path: Path):
    path = tmp_path / "RESULTS.md"
    old = [row("a.x", 1.0), row("b.gone", 1.0), row("c.z", 1.0), row("no_line_any_more.q")]
    report.write_results(path, MACHINE, old, 200)
    new = [replace(row("b.y", 1.01), date="2026-02-03")]
    merged = report.merge(report.read_results(path, MACHINE), new, ["a", "b", "c"])
    assert [r.name for r in merged] == ["a.x", "b.y", "c.z"]
    report.write_results(path, MACHINE, merged, 200)
    assert report.read_results(path, MACHINE) == merged
    assert [r.date for r in merged] == ["2026-01-02", "2026-02-03", "2026-01-02"]


def test_results_of_two_machines_are_not_mixed(tmp_path: Path):
    path = tmp_path / "RESULTS.md"
    report.write_results(path, MACHINE, [row("a.x")], 200)
    other = Machine("Another CPU, 8 cores, 64 GB of memory", MACHINE.versions)
    with pytest.raises(UserError, match=r"another machine \(A CPU, 2 cores"):
        report.read_results(path, other)
    assert report.read_results(tmp_path / "none.md", other) == []


def test_lines_have_names_and_say_what_they_are():
    lines = all_lines()
    assert len(lines) > 15
    for name, line in lines.items():
        assert name == line.name and "." not in name
        assert line.what
        assert set(line.archives) <= set(sizes.ARCHIVES)


def test_only_refuses_unknown_lines():
    assert [line.name for line in run.choose_lines(["predict", "help"])] == ["predict", "help"]
    with pytest.raises(UserError, match="--only nothing: no such line; there are: "):
        run.choose_lines(["nothing"])


def test_too_little_disk_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = run.choose_lines(None)
    needed = run.gigabytes_needed(lines, False)
    assert 20 < needed < 100
    usage = type(run.shutil.disk_usage(tmp_path))(100 << 30, 90 << 30, 10 << 30)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"has 11 GB free; give another folder"):
        run.check_disk(lines, tmp_path, quick=False)
    run.check_disk(lines, tmp_path, quick=True)


_CHILD = """
import subprocess, sys, time
if len(sys.argv) < 2:
    subprocess.run([sys.executable, __file__, "child"], check=True)
    print("done")
else:
    memory = bytearray(150_000_000)
    memory[::4096] = b"x" * len(memory[::4096])
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass
    time.sleep(0.4)
"""


def test_measuring_sees_memory_and_cpu_of_a_child(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(_CHILD)
    usage = run_measured([sys.executable, str(program)])
    assert usage.output == "done\n"
    assert usage.cpu_seconds >= 0.4
    assert usage.wall_seconds >= 0.8
    assert 0.15 < usage.peak_process_gb < usage.peak_tree_gb < 0.3


def test_measuring_a_failure_shows_its_last_lines():
    with pytest.raises(RunError, match=r"exit code 3: oh no"):
        run_measured([sys.executable, "-c", "import sys; sys.stderr.write('oh no'); sys.exit(3)"])


def test_jobs_alternate_and_are_logged(tmp_path: Path):
    order: list[str] = []
    bench = Bench(tmp_path, quick=True, repeats=2, log=lambda text: None)
    command = [sys.executable, "-c", "print('{\"n\": 1.5}')"]
    jobs = [Job(name, command, partial(order.append, name)) for name in ("a", "b")]
    runs = bench.alternate(jobs)
    assert order == ["a", "b", "a", "b"]
    assert runs["b"].reported("n") == 1.5
    raw = [json.loads(x) for x in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert [line["label"] for line in raw] == order
    assert raw[0]["wall_seconds"] > 0


def test_fixtures_are_made_once(tmp_path: Path):
    bench = Bench(tmp_path, quick=True, repeats=1, log=lambda text: None)
    made: list[Path] = []
    for slices in (1, 1, 2):
        folder = bench.fixture("some", {"slices": slices}, made.append)
    assert made == [folder, folder]


@pytest.fixture(scope="module")
def drawn() -> list[list[slice_archive.DrawnSlice]]:
    return slice_archive.draw_series(6, seed=1)


@pytest.fixture(scope="module", params=[False, True], ids=["even", "uneven"])
def archive_path(
    request: pytest.FixtureRequest,
    drawn: list[list[slice_archive.DrawnSlice]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("benchmark") / "archive.zip"
    slice_archive.write_archive(path, drawn, NUM_SLICES, request.param, seed=1)
    return path


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_archive_is_a_valid_zip_of_distinct_slices(archive_path: Path):
    with zipfile.ZipFile(archive_path) as archive:
        assert archive.testzip() is None
        names = [n for n in archive.namelist() if n.endswith(".dcm")]
        datasets = [pydicom.dcmread(io.BytesIO(archive.read(n))) for n in names]
        labels = archive.read(f"{ROOT}/stage_2_train.csv").decode().splitlines()
    assert len(datasets) == NUM_SLICES
    assert len({d.SOPInstanceUID for d in datasets}) == NUM_SLICES
    assert len({d.file_meta.MediaStorageSOPInstanceUID for d in datasets}) == NUM_SLICES
    for name, dataset in zip(names, datasets, strict=True):
        assert name.endswith(f"/{dataset.SOPInstanceUID}.dcm")
        assert dataset.pixel_array.shape == (512, 512)
    assert len({d.pixel_array.tobytes() for d in datasets}) == 6
    train = [name for name in names if "stage_2_train" in name]
    assert len(labels) == 1 + 6 * len(train)
    # One series belongs to one study of one patient.
    owners = {(d.SeriesInstanceUID, d.StudyInstanceUID, d.PatientID) for d in datasets}
    assert len(owners) == len({owner[0] for owner in owners})


def test_archive_is_read_by_the_project(archive_path: Path):
    archive = open_archive(str(archive_path))
    assert len(archive) == NUM_SLICES
    for index in range(NUM_SLICES):
        assert len(archive.read(archive.member(index))) > 2 * 512 * 512


def test_slices_of_a_large_plan_are_distinct_and_patients_uneven():
    plans = {
        uneven: slice_archive.plan_slices([30, 35], 20_000, uneven, seed=1)
        for uneven in (False, True)
    }
    largest = {}
    for uneven, plan in plans.items():
        assert len({p.identity.sop_instance_uid for p in plan}) == 20_000
        patients: dict[str, int] = {}
        for p in plan:
            patients[p.identity.patient_id] = patients.get(p.identity.patient_id, 0) + 1
        largest[uneven] = max(patients.values())
        test_share = sum(p.subset == "test" for p in plan) / len(plan)
        assert 0.03 < test_share < 0.25
    assert largest[False] < 200 < 3_000 < largest[True]


def test_synthetic_series_have_the_slices_asked_for_and_unique_ids():
    series = synthetic_series.draw_series(2_000, 57)
    items = [one.item(index) for one in series for index in range(one.num_slices)]
    assert len(items) == 2_000 == len({item.image_id for item in items})
    split_of = {}
    for one in series:
        assert split_of.setdefault(one.patient_id, one.split) == one.split


def test_every_main_is_asked_for_help():
    modules = start_lines.main_modules()
    assert {"beam_pipelines.predict", "trainer.train_base", "trainer.evaluate"} <= set(modules)


def test_benchmark_process_stays_small():
    """What it loaded would count in the memory of what it starts, and slow it down."""
    code = (
        "import sys; from benchmarks import run; run.choose_lines(None);"
        "print(*({'apache_beam', 'tensorflow', 'keras', 'cv2', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_results_file_holds_no_paths():
    text = "".join(astuple(row("a.x")))
    assert "/" not in text.replace(" / ", "")
