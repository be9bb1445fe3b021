PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help build test test-slow check format bench dist clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

build: .venv/base  ## install the package and build the embedded sample into ./store
	$(BIN)/stepsearch-data build --stage all

test: .venv/test  ## install what the tests need and run them
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: .venv/test  ## the long tests only
	$(BIN)/python -m pytest -n 2 -m slow

check: .venv/check  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/check  ## mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/base  ## measure how a build scales (about five minutes)
	$(BIN)/python benchmarks/scale.py

dist: .venv/base  ## build the wheel and try it in a clean environment
	rm -rf dist && $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --clear dist/env && dist/env/bin/pip install --quiet dist/*.whl
	dist/env/bin/stepsearch-data build --store dist/store --quiet && rm -rf dist/env dist/store

clean:  ## remove everything that make made
	rm -rf .venv store dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Stamps: an extra is installed anew only when pyproject.toml changes.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/base: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable . && touch $@

.venv/test: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[hub,test]" && touch $@ .venv/base

.venv/check: .venv/test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[check]" && touch $@
