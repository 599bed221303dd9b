PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help run test unit check bench format lock clean slurm-up slurm-down slurm-demo soak validate

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: $(VENV)/.runtime  ## installs what is locked and runs the embedded default, ends by naming the report
	$(BIN)/python launch.py

test: $(VENV)/.dev  ## all tests
	$(BIN)/python -m pytest

unit: $(VENV)/.dev  ## the fast tests
	$(BIN)/python -m pytest tests/unit -m "not slow"

check: $(VENV)/.dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## every script in benchmarks/, long ones with --quick unless FULL=1; one JSON line each
	$(BIN)/python benchmarks/run_all.py $(if $(FULL),,--quick)

slurm-up: $(VENV)/.runtime  ## a SLURM cluster on this machine: 4 nodes, fake GPUs (SLURM="--cpus 8 --no-dbd" for others)
	@$(BIN)/python -m tests.slurm.cluster start $(SLURM)

slurm-down:  ## stops it and removes its state
	@$(BIN)/python -m tests.slurm.cluster stop

slurm-demo: $(VENV)/.runtime  ## a small sweep through a SLURM cluster on this machine, to its page
	@$(BIN)/python -m tests.slurm.demo

soak: $(VENV)/.dev  ## sweeps on SLURM with everything killed at random, 50 times or SOAK=N
	SOAK=$(or $(SOAK),50) $(BIN)/python -m pytest tests/slurm/test_soak.py

validate: $(VENV)/.runtime  ## the ten questions and the instrument's calibration where the truth is planted; an hour or two
	$(BIN)/python benchmarks/validation.py

format: $(VENV)/.dev  ## sorts imports and applies ruff's safe fixes
	$(BIN)/ruff check --fix .

clean:  ## removes caches; results in outputs/ stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .bench
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# torch stands first and alone: installed after the others, pip would choose a build of gigabytes for them.
$(VENV)/.runtime: requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep -m1 '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	touch $@
