# make demo   certify the bundled CIFAR-10 test images      make test   run the test suite
# Both set up .venv on their first run; after that they install nothing until pyproject.toml or this file changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
PARALLEL := -n auto --maxprocesses 8 --dist loadfile
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-fast lint format bench cards readme evaluate site build clean
.DEFAULT_GOAL := help

help:
	@echo "make demo                certify the bundled CIFAR-10 test images"
	@echo "make test                run the test suite"
	@echo "make test-fast           the tests that take a minute in all; one folder: $(BIN)/python -m pytest tests/bounds"
	@echo "make setup               create $(VENV) (the other targets do so when needed)"
	@echo "make lint | format       ruff, mypy, import layers | let ruff rewrite the files"
	@echo "make bench               run the benchmarks"
	@echo "make cards | readme      render model cards and tables | rerun the commands that README shows"
	@echo "make evaluate NAME=...   evaluate one model again and compare with its card"
	@echo "make site                build the gallery in _site/ (needs Node.js with npm)"
	@echo "make build               wheel and sdist in dist/"

setup: $(STAMP)

# auto-LiRPA's metadata asks for torch < 1.13, so a resolver cannot place it beside a current torch: --no-deps, and what
# it needs at run time comes with the dev extra.
$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "acert-zoo needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps auto-LiRPA==0.3
	@touch $@

demo: setup
	@$(BIN)/acert-zoo certify --model cifar10_kappa025

test: setup
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: setup
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/api_page.py --check

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each benchmark runs by itself too (python benchmarks/NAME.py --help). Not on a busy machine: ratios are measured.
# radius_search_quality.py and methods.py train models for an hour and for hours: only by themselves.
bench: setup
	@set -e; for file in $$(ls benchmarks/[a-z]*.py | grep -v -e radius_search_quality -e methods); do echo "== $$file"; $(BIN)/python $$file; done

cards: setup
	$(BIN)/python training/cards.py
	$(BIN)/python scripts/api_page.py

readme: setup
	$(BIN)/python scripts/readme_outputs.py

evaluate: setup
	@test -n "$(NAME)" || { echo "name a model: make evaluate NAME=cifar10_kappa025" >&2; exit 2; }
	$(BIN)/python training/evaluate.py --model $(NAME) --check

site: setup
	$(BIN)/acert-zoo site _site

build: setup
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .mypy_cache .hypothesis
