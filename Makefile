PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
NUMERIC := tests/workbench tests/analyses tests/oracles tests/benchmarks
SERVE ?= 1
STUDY ?= studies/demo

.PHONY: demo test checks pytest test-portable test-install docs bench clean

demo: .venv/ready
	$(BIN)/workbench demo --out $(STUDY) $(if $(filter 0,$(SERVE)),--no-serve)

# mypy has one process: tests use the other processor meanwhile.
test: .venv/ready
	$(MAKE) --jobs=2 checks pytest

checks: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/deptry tests benchmarks --ignore DEP002,DEP004 --exclude '.*/(make_distance_fixtures|make_musicnn_fixtures|make_patching_fixtures|make_sae_fixtures|saelens_store|saelens_training|sae_steps|test_distance_peers)' --extend-exclude build/

pytest: .venv/ready
	$(PYTEST)

# What computes numbers, as older processors compute it, with two threads, and rounded as nowhere (tests/rounding.py).
test-portable: .venv/ready
	ATEN_CPU_CAPABILITY=default $(PYTEST) $(NUMERIC)
	MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST) $(NUMERIC)
	$(PYTEST) -p tests.rounding --ignore tests/workbench/models/test_memory.py $(NUMERIC)
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest $(NUMERIC)

test-install: .venv/ready
	$(BIN)/python tests/installed.py

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/ready
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv site build *.egg-info

# Set up once, and again whenever a dependency changes.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 13) else "The pinned set-up needs Python 3.11 or 3.12; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[clap,dev,docs]'
	touch $@
