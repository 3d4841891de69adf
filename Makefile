PYTHON ?= python3
SCALE  ?= laptop
JOBS   ?=
ONLY   ?=
MINUTES ?=
SECONDS = 440
DRY    ?=
DEVICE ?=
PART   ?=
DATA   ?=

BIN   := .venv/bin
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)

# .venv/installed-X says that .venv has the requirements X of pyproject.toml. A larger set marks the
# smaller ones too: after `make lint`, `make test` and `make figures` install nothing.
INSTALLED      := .venv/installed-
INCLUDED-test  := core
INCLUDED-dev   := core test
INCLUDED-bench := core test
INCLUDED-notebook := core

.DEFAULT_GOAL := help
.PHONY: help venv figures test lint bench operators autograd gpu notebooks clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(INSTALLED)core  ## make .venv with what sparsediag needs (the other targets do this themselves)

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; call make with PYTHON=python3.11 or later"; exit 2; }
	$(PYTHON) -m venv .venv

$(INSTALLED)%: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.$(if $(filter-out core,$*),[$*])'
	@touch $@ $(addprefix $(INSTALLED),$(INCLUDED-$*))

figures: $(INSTALLED)core  ## draw the papers' figures [SCALE=smoke|laptop|desk|hour|paper] [ONLY=tost/fig09a] [MINUTES=60] [JOBS=2] [DATA=folder:PATH]
	@$(BIN)/python -m figures $(ONLY) --scale $(SCALE) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(JOBS),--jobs $(JOBS)) $(if $(DATA),--data $(DATA))

test: $(INSTALLED)test  ## run the test suite
	@$(BIN)/python -m pytest -n $(or $(JOBS),$(CORES))

lint: $(INSTALLED)dev  ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(INSTALLED)bench  ## measure speed, next to other tools [PART=speed|sizes|products|warm|solvers|landscape|scoring|watch] [DEVICE=cuda]
	@$(BIN)/python -m tests.bench $(PART) $(if $(DEVICE),--device $(DEVICE))

operators: $(INSTALLED)test  ## the eigensolver, and those of others, on 3,000 matrices with known spectra (10 minutes)
	@$(BIN)/python -m tests.bench operators

autograd: $(INSTALLED)test  ## products through each of torch's operators against finite differences (5 minutes)
	@$(BIN)/python -m tests.oracle.op_db

# PYTHON if it is given; else .venv if there is one
HERE = $(if $(filter command,$(origin PYTHON)),$(PYTHON),$(if $(wildcard $(INSTALLED)core),$(BIN)/python,$(PYTHON)))

gpu:  ## run everything that needs a GPU, with a Python that has torch [SECONDS=440] [DATA=folder:PATH] [DRY=1]
	@$(HERE) -m tests.gpu $(if $(DRY),--dry,--seconds $(SECONDS)) $(if $(DATA),--data $(DATA)) $(if $(DEVICE),--device $(DEVICE))

notebooks: $(INSTALLED)notebook  ## run the notebooks from top to bottom; nothing is opened or written into them
	@$(BIN)/jupyter execute notebooks/*.ipynb

clean:  ## remove results (out/), caches and .venv
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
