# archspec: everything runs in .venv, which "make setup" makes. "make help" lists the targets.

PYTHON ?= python3
WORKERS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-stamp
PIP_INSTALL := $(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow fuzz bench bench-gpu quality quality-short check format clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make .venv and install archspec with all it needs (Python >= 3.11)
	@echo "setup: $(VENV) is ready"

demo: $(STAMP) ## run the demo
	@$(PY) examples/demo.py

test: $(STAMP) ## run the tests (WORKERS=N sets how many at a time)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n $(WORKERS) -m "not slow" tests

test-slow: $(STAMP) ## run the tests that take half a minute and more: packages, generated code of rare parts
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n $(WORKERS) -m slow tests

fuzz: $(STAMP) ## check many broken specs (INPUTS=N, SEED=N)
	@$(PY) tests/fuzz.py --inputs $${INPUTS:-20000} --seed $${SEED:-0} --workers $(WORKERS)

bench: $(STAMP) ## measure the fixed set of workloads, and write its page (15 minutes on two cores)
	@mkdir -p out
	@$(VENV)/bin/archspec bench --suite cpu --json out/bench_cpu.json --page docs/benchmarks --plot docs/figures/bench_cpu.svg

bench-gpu: $(STAMP) ## the same for the papers' comparisons on a GPU (10 minutes on an H100)
	@mkdir -p out
	@$(VENV)/bin/archspec bench --suite gpu --json out/bench_gpu.json --page docs/benchmarks --plot docs/figures/bench_gpu.svg

quality: $(STAMP) ## train the models of the quality table, and write its page (4 hours on two cores; goes on where it was)
	@$(PY) benchmarks/quality.py --jobs $(WORKERS)

quality-short: $(STAMP) ## a short form of the same (10 minutes)
	@$(PY) benchmarks/quality.py --short --jobs $(WORKERS)

check: $(STAMP) ## check format, lint, types and import rules
	@echo "check: ruff format"
	@$(PY) -m ruff format --check .
	@echo "check: ruff"
	@$(PY) -m ruff check .
	@echo "check: mypy"
	@$(PY) -m mypy
	@echo "check: import rules"
	@$(VENV)/bin/lint-imports --no-logo

format: $(STAMP) ## format the code and apply the safe lint fixes
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

clean: ## remove caches and build output
	@rm -rf build dist out htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -path ./.git -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean ## remove caches, build output and .venv
	@rm -rf $(VENV)

# Redone only when one of these files changes. The build backend comes first so that the build
# of archspec itself uses the pinned one too; setuptools because some dependencies come as source only.
$(STAMP): pyproject.toml constraints.txt Makefile
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "setup: $(PYTHON) not found; install Python 3.11 or newer, or name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "setup: archspec needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1); name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import ensurepip, venv' >/dev/null 2>&1 || { \
	    echo "setup: $(PYTHON) lacks venv or ensurepip; install them (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }; \
	  echo "setup: making $(VENV) with $$($(PYTHON) -V 2>&1)"; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@echo "setup: installing the build backend"
	@$(PIP_INSTALL) hatchling editables setuptools
	@echo "setup: installing archspec, torch and the development tools (this can take a few minutes)"
	@$(PIP_INSTALL) --no-build-isolation -e '.[torch,hf,lsp,plot,dev]'
	@$(PY) -m compileall -q archspec  # an editable install does not: without it, the first command compiles all it runs
	@touch $@
