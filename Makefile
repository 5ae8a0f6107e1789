# Two commands do all their own set-up: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# pip would compile all that it installs, of which a tenth is ever imported: that is compiled when it first is, whatever the
# environment says of bytecode.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help quickstart test check docs wheels format clean

help:
	@echo "make quickstart   set up, then fine-tune a small encoder on BBC News under 250,000 parameters"
	@echo "make test         set up, then run the tests (PYTEST=--exhaustive: every case of the sampled ones)"
	@echo "make check        ruff and mypy"
	@echo "make docs         build the site into site/, warnings as errors"
	@echo "make wheels       make the wheels into dist/, and try them"
	@echo "make clean        remove what make made"

$(VENV)/.runtime: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing rankwise into $(VENV) (torch is the large part) ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing rankwise and the development tools into $(VENV) (torch is the large part) ..."
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.runtime $@

quickstart: $(VENV)/.runtime
	@rm -rf runs/quickstart
	$(BIN)/rankwise train examples/quickstart.yaml --out runs/quickstart
	$(BIN)/rankwise evaluate runs/quickstart
	@echo
	@echo "Try it on texts of your own, one a line:"
	@echo "  echo 'Shares fell as the bank cut its forecast.' > mine.txt"
	@echo "  $(BIN)/rankwise predict runs/quickstart mine.txt labels.csv && cat labels.csv"

# One process more than there are cores: tests of killed and waiting processes leave a core idle.
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $$(( $$($(BIN)/python -c 'import os; print(os.cpu_count())') + 1 )) --dist worksteal $(PYTEST)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheels: $(VENV)/.dev
	$(BIN)/python tools/wheels.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
