# Two commands for a newcomer: `make demo` and `make test`. Everything else is a part of them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
DATA_DIR ?= build/demo
GPU ?=
BENCH ?=
QUALITY ?=
LOCK := requirements$(if $(GPU),-gpu).lock
# Another lock file makes the environment anew.
STAMP := $(VENV)/.installed-$(basename $(LOCK))

DEMO_ARCHIVE := $(DATA_DIR)/archive.zip
DEMO_PATIENTS ?= 100
DEMO_SEED ?= 1

.PHONY: help env demo test test-slow bench quality lint lock clean

help:
	@echo "make demo       every stage on a drawn archive, both models trained, under five minutes"
	@echo "                (DATA_DIR=build/demo, DEMO_PATIENTS=100, DEMO_SEED=1)"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make bench      measures every stage, writes benchmarks/RESULTS.md: hours, 60 GB of disk"
	@echo "                (BENCH='--quick', BENCH='--only predict help', BENCH=--list)"
	@echo "make quality    compares models and settings on drawn phantoms, writes benchmarks/quality.md:"
	@echo "                an hour, 6 GB of disk (QUALITY='--quick', QUALITY='--only ema', QUALITY=--list)"
	@echo "make env        the environment, in .venv; GPU=1 for TensorFlow's CUDA libraries"
	@echo "make lint       linter and type checker"
	@echo "make lock       resolve the dependencies of pyproject.toml anew"

env: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 11) else \
		f"error: Python 3.11 or later is needed, but {sys.executable} is {v[0]}.{v[1]}; \
	give another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@# --no-deps: the lock is complete, and pip 23 looks up extras anew, past the pinned version.
	$(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes -r $(LOCK)
	$(VENV)/bin/python -m pip check
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

$(DEMO_ARCHIVE): | $(STAMP)
	$(VENV)/bin/python -m beam_pipelines.make_demo_archive --output $@ \
		--patients $(DEMO_PATIENTS) --seed $(DEMO_SEED)

demo: $(STAMP) $(DEMO_ARCHIVE)
	PYTHON=$(VENV)/bin/python launch/local.sh \
		--archive $(DEMO_ARCHIVE) --data_dir $(DATA_DIR) --config configs/demo.yaml
	@$(VENV)/bin/python -m launch.summary --data_dir $(DATA_DIR) --check_order

test: $(STAMP)
	$(VENV)/bin/python -m pytest

test-slow: $(STAMP)
	$(VENV)/bin/python -m pytest -m slow

bench: $(STAMP)
	$(VENV)/bin/python -m benchmarks.run $(BENCH)

quality: $(STAMP)
	$(VENV)/bin/python -m benchmarks.quality $(QUALITY)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

lock:
	uv pip compile -q pyproject.toml --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --no-annotate --custom-compile-command "make lock" -o requirements.lock
	uv pip compile -q pyproject.toml --python-version 3.11 --extra dev --extra gpu \
		--generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" -o requirements-gpu.lock

clean:
	rm -rf build dist *.egg-info
