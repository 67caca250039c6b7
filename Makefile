# The one list of commands; `make` prints it. Every command sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types fmt bench docs lock site world world-data world-larger world-without world-ties check

WORLD ?= build/world

help: ## print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

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

lock: $(READY) ## write the versions of this environment to constraints-tested.txt
	$(BIN)/python -m recipes.lock

site: $(READY) ## build the documentation as a site, in build/site
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict

# Threads that spin while they wait take ten times as long beside other work.
world world-without world-ties world-larger: export OMP_WAIT_POLICY ?= passive

world: world-data ## make the embedded world anew, data and model, in WORLD=build/world (10 minutes)
	$(BIN)/python -m recipes.world train $(WORLD)

world-data: $(READY) ## the same without its model (half a minute)
	$(BIN)/python -m recipes.world build $(WORLD)

world-without: WORLD = build/without
world-without: WITHOUT = recipes/world/assets/demo-forgets.txt
world-without: $(READY) ## pre-train it without WITHOUT, the 20 people the demo forgets (20 to 60 minutes; docs/protocol.md)
	$(BIN)/python -m recipes.world train $(WORLD) --without $(WITHOUT)

world-ties: WORLD = build/ties
world-ties: $(READY) ## pre-train it with a friend for everybody, half of them known otherwise (15 to 40 minutes; docs/protocol.md)
	$(BIN)/python -m recipes.world train $(WORLD) --ties

world-larger: WORLD = build/larger
world-larger: $(READY) ## build a larger world on SmolLM2, in WORLD=build/larger (17 minutes; docs/larger-world.md)
	$(BIN)/python -m recipes.world larger $(WORLD)

check: lint types test ## everything a change must pass
