# make setup | demo | test | fuzz | lint | bench | zoo-table | docs | clean     (Python >= 3.11 and a network are all it takes)
#
# Everything runs in ./.venv, made on the first call and renewed when pyproject.toml, constraints.txt or the kernel's
# sources change (an editable install compiles the kernel).
# PYTHON=... chooses the interpreter; EXTRAS=... what is installed.

SHELL  := /bin/bash
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
EXTRAS ?= train,onnx,dev
TORCH  := $(shell grep '^torch==' constraints.txt)
KERNEL := $(wildcard hatch_build.py neurodeploy/simulate/kernel/*.[ch] neurodeploy/simulate/kernel/build.py neurodeploy/networks/*/*.c)
PIP    := $(PY) -m pip --disable-pip-version-check install -qq --constraint constraints.txt $(TORCH)

.PHONY: setup demo test fuzz lint bench docs zoo-table clean
.DEFAULT_GOAL := setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt $(KERNEL)
	@if ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      found=$$python; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "neurodeploy needs Python 3.11 or newer with venv; found: $$(python3 --version 2>&1)." \
	      "Install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	    exit 2; \
	  fi; \
	  echo "making $(VENV) with $$($$found --version)"; \
	  rm -rf $(VENV) && $$found -m venv $(VENV); \
	fi
	@echo "installing neurodeploy[$(EXTRAS)] into $(VENV) (the first time takes some minutes)"
	@$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(READY)
	$(VENV)/bin/neurodeploy deploy demo --target loihi2 --out runs/demo --force

test: $(READY)
	$(PY) -m pytest -q

# the compiled kernel under the sanitizers, against the reference
fuzz: $(READY)
	$(PY) tests/fuzz_kernel.py

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(READY)
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

# SETS=folder holds set12, kodak24 and the others that models/protocol.toml names.
zoo-table: $(READY)
	$(VENV)/bin/neurodeploy models --score $(if $(SETS),--sets $(SETS)) --into README.md --cards

docs: $(READY)
	@$(PIP) --editable '.[docs]'
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
