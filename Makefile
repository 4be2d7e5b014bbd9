# Needs Python 3.11 or later and make, nothing else. PYTHON=python3.12 make test takes another Python.
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO_MINUTES ?= 2

.PHONY: demo test torture lint types check clean

## train two minutes on Shakespeare's plays, and write some
demo: $(VENV)/.installed
	$(BIN)/charlm train shakespeare --minutes $(DEMO_MINUTES)
	$(BIN)/charlm sample --temp 0.8 -n 500

## linter, type checker, tests
test: lint types
	$(BIN)/python -m pytest -q

## a hundred kills, tens of thousands of damaged files and command lines
torture: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m torture

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

## the environment, made anew only when what it depends on has changed
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
