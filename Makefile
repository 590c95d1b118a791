# Needs make and Python 3.11 or newer; everything else goes into .venv. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV   ?= .venv
BENCH  ?= .venv-bench
BIN    := $(VENV)/bin
# Processes for tests, most of which wait. Tests that stop their broker are a group, which stays together.
TESTS       ?= --numprocesses 4 --dist worksteal
INTEGRATION ?= --numprocesses 4 --dist loadgroup
# What make check does side by side.
CHECKS := check-mypy check-pyright check-ruff check-imports check-packaging
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Where Python is told not to keep what it compiles, each of the hundreds of programs that tests start would compile it.
unexport PYTHONDONTWRITEBYTECODE

SHELL       := /bin/sh
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test check $(CHECKS) coverage bench clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(BIN)/cluster-kit ## watch a small cluster work, without any server
	$(BIN)/cluster-kit demo

test: $(VENV)/.installed-dev ## tests without a server, then the same contracts and faults on real servers
	$(BIN)/python -m pytest $(TESTS)
	scripts/servers rabbitmq redis memcached postgresql
	$(BIN)/python -m pytest integration $(INTEGRATION)

check: $(VENV)/.installed-dev ## format, lint, types, import directions, packaging: all that needs no running code
	@$(MAKE) --jobs=2 --keep-going $(if $(filter output-sync,$(.FEATURES)),--output-sync) $(CHECKS)

check-mypy: # first, for it takes longest
	$(BIN)/mypy

check-pyright:
	$(BIN)/pyright --pythonpath $(BIN)/python

check-ruff:
	$(BIN)/ruff check
	$(BIN)/ruff format --check

check-imports:
	$(BIN)/lint-imports

check-packaging:
	$(BIN)/python -m pytest tests/meta

coverage: $(VENV)/.installed-dev ## which lines the tests without a server do not reach
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report

bench: $(BENCH)/.installed ## measure beside other libraries for 20 minutes; writes docs/benchmarks.md
	$(BENCH)/bin/python benchmarks/run.py --document docs/benchmarks.md

clean: ## remove the virtual environment and everything that tools left behind
	rm -rf $(VENV) $(BENCH) build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "cluster-kit needs Python 3.11 or newer, and '$(PYTHON)' is none. Name one: make PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Only where there is none: what was installed there by hand is not replaced by a demonstration.
$(BIN)/cluster-kit:
	@$(MAKE) $(VENV)/.installed

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(BENCH)/.installed: pyproject.toml benchmarks/requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m venv $(BENCH)
	$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --editable ".[redis]" --requirement benchmarks/requirements.txt
	@touch $@
