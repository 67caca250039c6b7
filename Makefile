# The one list of commands; `make` prints it. Every command sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types fmt bench docs check

help: ## print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY) ## run the whole protocol on the embedded world, to runs/demo/report.html
	$(BIN)/pulse run demo

test: $(READY) ## run the tests (under 10 minutes on 2 cores, no network)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY) ## run all tests, slow ones too
	$(BIN)/pytest

lint: $(READY) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## strict type check
	$(BIN)/mypy

fmt: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## time the fast path against a plain loop, and the demo's parts, on this machine (half an hour)
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/demo.py

docs: $(READY) ## write the generated parts of the docs anew
	$(BIN)/python docs/generate.py

check: lint types test ## everything a change must pass
