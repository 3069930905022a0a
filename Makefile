# Each target does its own set-up; a stamp file makes the second call quick.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core
DEVELOP := $(VENV)/.develop
CONCURRENCY ?= 256

WORKERS ?= 2

.PHONY: predict test check lint suite quick clean

predict: $(CORE)
	$(BIN)/pdvsim predict --concurrency $(CONCURRENCY) --report predict.html

# Everything, on two cores: lint and types beside the tests.
test: $(DEVELOP)
	$(MAKE) -j2 lint suite

# The same without the slow tests: about a minute.
check: $(DEVELOP)
	$(MAKE) -j2 lint quick

suite: $(DEVELOP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

quick: $(DEVELOP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m 'not slow'

lint: $(DEVELOP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pdvsim needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

# torch by itself and pinned first: the index's build of it for this machine, which the extras
# then leave alone.
$(DEVELOP): pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[engine,test]'
	touch $@ $(CORE)
