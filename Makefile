# attelbo: set-up, training, tests. `make help` lists the targets.
#
# TORCH=cpu     installs torch's CPU-only build, through uv's torch backend: make train TORCH=cpu (or cu130, ...);
#               stays until another is named, TORCH= being the locked one
# ARGS="..."    goes on to the command: make train ARGS="data=mnist seed=1"
# WORKERS=2     processes that share the tests; 0: all in one

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
VENV := .venv
TORCH ?= $(patsubst .ready-%,%,$(notdir $(wildcard $(VENV)/.ready-*)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready$(addprefix -,$(TORCH))
UV := $(BIN)/uv
# Compiled once here, or every start would compile Lightning anew where Python may not write beside its sources.
export UV_COMPILE_BYTECODE := 1
# Nor attelbo and its tests, by each of the processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup train test test-slow test-slurm lint format bench notebooks lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

setup: $(READY) ## Create .venv and install the locked dependencies and attelbo

# uv itself is pinned in the lock too; its lines, hashes and all, bootstrap it.
$(UV): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
		|| { echo "error: attelbo needs Python 3.11 to 3.14, $(PYTHON) is $$($(PYTHON) -V): make PYTHON=python3.12 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed -n '/^uv==/,/^ *# via/p' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@touch $(UV)

$(READY): $(UV) requirements.lock pyproject.toml
ifeq ($(TORCH),)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
else
	@# Another build of torch has other hashes: lock anew, at the versions of requirements.lock, then install that.
	@grep -E '^[a-z0-9].*==' requirements.lock | sed 's/ \\$$//' > $(VENV)/versions.txt
	$(UV) pip compile pyproject.toml --extra dev --constraint $(VENV)/versions.txt --torch-backend $(TORCH) \
		--python $(BIN)/python --generate-hashes --quiet --output-file $(VENV)/requirements-$(TORCH).lock
	$(UV) pip sync --quiet --python $(BIN)/python --torch-backend $(TORCH) --require-hashes $(VENV)/requirements-$(TORCH).lock
endif
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.ready*
	@touch $(READY)

train: $(READY) ## Train the default experiment (ARGS="..." for others)
	@$(BIN)/attelbo train $(ARGS)

test: $(READY) ## Run the tests (ARGS="-k word" for some)
	@$(BIN)/python -m pytest -q -m "not slow and not slurm" -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(READY) ## Run the tests that take minutes
	@$(BIN)/python -m pytest -q -m slow $(ARGS)

test-slurm: $(READY) ## Install Slurm (Debian, as root), start two nodes on this machine, run the tests on them, stop them
	@command -v slurmctld > /dev/null || tests/slurm/cluster install
	@$(BIN)/python -m pytest -q -m slurm tests/slurm $(ARGS)

lint: $(READY) ## Check format, style, types, spelling and notebooks
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure

format: $(READY) ## Mend what can be mended by itself
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .

bench: $(READY) ## Measure speed beside the bare loop and others, a quarter of an hour (ARGS="--quick", "--help")
	@$(BIN)/python -m benchmarks $(ARGS)

notebooks: $(READY) ## Run every notebook from top to bottom
	@$(BIN)/python -m pytest -q tests/test_notebooks.py

lock: $(UV) ## Compile requirements.lock anew from pyproject.toml (ARGS="--upgrade" for newer versions)
	@$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --quiet --output-file requirements.lock $(ARGS)

clean: ## Remove .venv and caches; runs in outputs/ stay
	@rm -rf $(VENV) benchmarks/.envs build dist .pytest_cache .ruff_cache .hypothesis
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
