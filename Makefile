PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

export DO_NOT_TRACK := 1
# The tests start hundreds of processes: without bytecode, each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: demo quick test lint unit bench clean

demo: $(VENV)/.installed  ## The whole pipeline against the built-in simulated portal
	$(BIN)/callhistory demo

quick: lint  ## Lint, types and the tests that need no server: under a minute
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/unit

test: lint unit  ## Lint, types and the whole test suite

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: $(VENV)/.installed-dev $(VENV)/.installed-dbt
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.installed-bench  ## Side by side with dlt and a bare script; writes tests/benchmarks/RESULTS.md
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf $(VENV) data .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[all,dev]'
	touch $@

# dbt has an environment of its own: it wants other versions of what Prefect needs too. Wheels only: one of its parts
# would otherwise be compiled.
$(VENV)/.installed-dbt: deployments/bi/dbt/requirements.txt | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/dbt
	$(VENV)/dbt/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement $<
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(PIP) --editable '.[all,dev,bench]'
	touch $@
