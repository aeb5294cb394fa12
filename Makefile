# One command runs the main job, one passes the tests; .venv is made on the way, once.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
CODE := launcher workers tests examples benchmarks

# The first Python on this machine that the pins in setup.cfg allow.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3.11 python3 python python3.12; do \
	"$$p" -c '$(SUPPORTED)' >/dev/null 2>&1 && command -v "$$p" && break; done)

# A stamp says which extras are installed; each is as new as setup.cfg, or made again.
RUN := $(VENV)/.installed-run
TEST := $(VENV)/.installed-test
DEV := $(VENV)/.installed-dev

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup system-packages run test check bench bench-reshard format job-reference digits-checkpoint clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV) ## Make .venv with everything a developer needs

# Tests that lack one of these are skipped, and say so.
system-packages: ## Install what the tests of Slurm and of several hosts need (Debian; as root)
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends iproute2 munge slurm-client slurmctld slurmd

run: $(RUN) ## Run the main job on 8 ranks (more arguments: make run ARGS="job.yaml --json")
	@$(BIN)/python -m launcher --ranks 8 $(ARGS)

test: $(TEST) ## Run all tests, in parallel
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: $(DEV) ## Check style, types and the direction of imports
	$(BIN)/python -m flake8 $(wildcard $(CODE))
	$(BIN)/python -m isort --check-only --diff $(wildcard $(CODE))
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

bench: $(RUN) ## Measure side by side with other tools (see benchmarks/)
	$(if $(wildcard benchmarks/*.py),,@echo 'benchmarks/ is empty')
	@for bench in $(wildcard benchmarks/*.py); do $(BIN)/python "$$bench" || exit 1; done

bench-reshard: $(RUN) ## Measure the re-sharding core: limit, MindSpore, safetensors (ARGS=--help)
	@$(BIN)/python benchmarks/resharding.py $(ARGS)
	@$(BIN)/python benchmarks/resharding_plan.py

format: $(DEV) ## Sort the imports
	$(BIN)/python -m isort $(wildcard $(CODE))

job-reference: $(RUN) ## Write docs/job.md anew
	$(BIN)/python -m launcher.job_reference > docs/job.md

digits-checkpoint: $(RUN) ## Train examples/digits again and write its slices
	$(BIN)/python -m examples.digits.train

clean: ## Remove .venv and everything that was generated
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .hypothesis .import_linter_cache runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or 3.12 found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(RUN): setup.cfg | $(BIN)/python
	@echo 'installing into $(VENV), once'
	@$(INSTALL) .
	@touch $@

$(TEST): setup.cfg | $(BIN)/python
	@echo 'installing into $(VENV), once'
	@$(INSTALL) '.[test]'
	@touch $@ $(RUN)

$(DEV): setup.cfg | $(BIN)/python
	@echo 'installing into $(VENV), once'
	@$(INSTALL) '.[dev]'
	@touch $@ $(RUN) $(TEST)
