# What there is to do with this tree: `make` lists it. Needs Python 3.11 or later; `make test` wants Java 17 and Maven too.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)

# pip may read a mirror from the machine's configuration; here it need only be quiet and sure.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
RESOLVE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header

# Each process of the tests has a broker of its own, if it runs tests that want one: half a gigabyte.
PROCESSES ?= 4
ROUNDS ?= 20
SECONDS ?= 60

.PHONY: help
help: ## list what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(INSTALLED) ## a small shop, live: server, journeys, customers and a mailbox, until Ctrl-C
	@exec $(BIN)/equeengage demo

.PHONY: test
test: lint ## lint, then all tests, against a real Kafka broker too
	@echo "testing ..."
	@$(BIN)/python -m pytest -q -n auto --maxprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: lint
lint: $(INSTALLED) ## how it is written and typed
	@echo "checking style and types ..."
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "some files are not formatted: make format"; exit 1; }
	@$(BIN)/mypy

.PHONY: format
format: $(INSTALLED) ## write all files as `make lint` wants them
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

.PHONY: docs
docs: $(INSTALLED) ## the pages, into build/docs; open build/docs/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/docs/index.html"

.PHONY: kafka
kafka: ## a Kafka broker on 127.0.0.1:9092 for development, until Ctrl-C
	@exec $(PYTHON) deploy/kafka/broker.py

.PHONY: bench
bench: $(INSTALLED) ## measure again what benchmarks/README.md says; FULL=1: at full size (leave the machine alone)
	@exec $(BIN)/python -m benchmarks $(if $(FULL),--full)

.PHONY: chaos
chaos: $(INSTALLED) ## kill, freeze and starve a cluster for ROUNDS=20 of SECONDS=60; verify it; build/chaos tells of it
	@exec $(BIN)/python -m tests.scenarios.chaos --rounds $(ROUNDS) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: grid
grid: $(INSTALLED) ## a worker dies at every point, in its first batch and under load, with and without standby (minutes)
	@exec $(BIN)/python -m pytest -q -m "slow or not slow" tests/scenarios/test_crash_grid.py

.PHONY: lock
lock: $(INSTALLED) ## resolve pyproject.toml into the two locks anew, to the newest versions allowed
	@$(PIP) install --quiet uv
	@$(RESOLVE) --upgrade --extra demo --extra backtest --group dev --output-file requirements.lock
	@$(RESOLVE) --constraint requirements.lock --no-annotate --output-file deploy/requirements.lock
	@echo "requirements.lock and deploy/requirements.lock are new; run: make test"

.PHONY: install
install: $(INSTALLED) ## only the virtual environment in .venv, with everything in it

.PHONY: clean
clean: ## remove what was made here: environment, caches, builds (not the data folder)
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is made last: an installation that broke off is begun again.
$(INSTALLED): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@[ -x $(BIN)/python ] || { echo "making the virtual environment in $(VENV) ..."; "$(PYTHON)" -m venv $(VENV); } \
		|| { rm -rf $(VENV); echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 1; }
	@echo "installing $$(grep -c '^[a-z]' requirements.lock) packages, each checked against its hash ..."
	@$(PIP) install --quiet --require-hashes --no-deps --requirement requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)
	@echo "installed"
