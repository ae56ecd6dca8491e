import json
import subprocess
import sys
from pathlib import Path

import beam_pipelines

PIPELINES = Path(beam_pipelines.__path__[0])
# The mains of pipelines, which import Beam when they run one.
MAINS = (
    "extract_metadata",
    "process_labels",
    "build_examples",
    "extract_images",
    "extract_embeddings",
    "build_sequences",
    "predict",
    "make_demo_archive",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def imported_with(modules: list[str]) -> set[str]:
    """The top-level packages that a fresh process has loaded with some modules."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    found = run("-c", code)
    assert found.returncode == 0, found.stderr
    return set(json.loads(found.stdout))


def test_all_but_the_transforms_load_neither_beam_nor_tensorflow():
    """Only `transforms` imports Beam at once; mains and model users import it when they run."""
    names = {path.stem for path in PIPELINES.glob("*.py")} - {"__init__", "transforms"}
    modules = [f"beam_pipelines.{name}" for name in sorted(names)]
    assert len(modules) > 30
    found = imported_with([*modules, "configs", "configs.loader"])
    assert not found & {"apache_beam", "tensorflow", "keras", "tensorflow_transform", "pandas"}


def test_transforms_load_beam_and_no_tensorflow():
    assert not imported_with(["beam_pipelines.transforms"]) & {"tensorflow", "keras"}


def test_every_main_is_tried():
    mains = {p.stem for p in PIPELINES.glob("*.py") if "__main__" in p.read_text()}
    assert mains == set(MAINS)


def test_help_loads_neither_beam_nor_tensorflow():
    """All mains in one process: an import of TensorFlow would take seconds each."""
    code = (
        "import contextlib, importlib, io, json, sys\n"
        "helps = {}\n"
        f"for name in {MAINS!r}:\n"
        "    main = importlib.import_module('beam_pipelines.' + name)\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        with contextlib.suppress(SystemExit): (getattr(main, 'run', None) or main.main)"
        "(['--help'])\n"
        "    helps[name] = out.getvalue()\n"
        "print(json.dumps([helps, sorted(name for name in sys.modules if '.' not in name)]))"
    )
    found = run("-c", code)
    assert found.returncode == 0, found.stderr
    helps, modules = json.loads(found.stdout)
    for name in MAINS:
        assert f"usage: python -m beam_pipelines.{name}" in helps[name]
        assert "--help" in helps[name]
    assert not set(modules) & {"apache_beam", "tensorflow", "keras"}


def test_help_of_a_real_command():
    found = run("-m", "beam_pipelines.predict", "--help")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("usage: python -m beam_pipelines.predict ")
