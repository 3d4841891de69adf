PYTHON ?= python3
SCALE  ?= laptop
JOBS   ?=
ONLY   ?=
SECONDS = 440
DRY    ?=
DEVICE ?=
PART   ?=
DATA   ?=

BIN   := .venv/bin
READY := .venv/ready
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)

.DEFAULT_GOAL := help
.PHONY: help venv figures test lint bench gpu notebooks clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(READY)  ## make .venv (done by itself when it is needed)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; call make with PYTHON=python3.11 or later"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

figures: $(READY)  ## draw the papers' figures [SCALE=smoke|laptop|hour|paper] [ONLY=tost/fig09a] [JOBS=2] [DATA=folder:PATH]
	@$(BIN)/python -m figures $(ONLY) --scale $(SCALE) $(if $(JOBS),--jobs $(JOBS)) $(if $(DATA),--data $(DATA))

test: $(READY)  ## run the test suite
	@$(BIN)/python -m pytest -n $(or $(JOBS),$(CORES))

lint: $(READY)  ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY)  ## measure speed against the floor and other tools [PART=speed|products|warm|solvers|landscape] [DEVICE=cuda]
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m tests.bench $(PART) $(if $(DEVICE),--device $(DEVICE))

# PYTHON where it is given; else .venv where it has been made
HERE = $(if $(filter command,$(origin PYTHON)),$(PYTHON),$(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)))

gpu:  ## everything that needs a GPU, by a python that has torch [SECONDS=440] [DATA=folder:PATH] [DRY=1]
	@$(HERE) -m tests.gpu $(if $(DRY),--dry,--seconds $(SECONDS)) $(if $(DATA),--data $(DATA)) $(if $(DEVICE),--device $(DEVICE))

notebooks: $(READY)  ## run the notebooks from top to bottom; nothing is opened or written into them
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[notebook]'
	@$(BIN)/jupyter execute notebooks/*.ipynb

clean:  ## remove what was computed (out/), caches and .venv
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
