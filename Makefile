# Everything here sets itself up: `make demo` and `make test` need only make and Python >= 3.11.
#   make demo ARGS="--json demo.json"      passes arguments on to the command
#   make test ARGS="tests/unit -x"         passes arguments on to pytest
#   make test PROCESSES=0                  runs the tests in one process, for a debugger (default: one per core, up to 8)
#   make PYTHON=python3.12 test            chooses the interpreter of the environment
#   make PIP_ARGS="..." test               passes arguments on to pip, an index of CPU-only wheels for example
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

ARGS ?=
PIP_ARGS ?=
PROCESSES ?= logical
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BREAKING_STAMP := $(VENV)/.installed-breaking
BENCHMARKS_STAMP := $(VENV)/.installed-benchmarks
# Tests that stand together stay together, as far as both ends of a run allow: what a module makes is made once.
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The first interpreter that is new enough and can make environments; prints its name, or says what to install.
define FIND_PYTHON
for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		python="$$candidate"; break; \
	fi; \
done; \
if [ -z "$${python:-}" ]; then \
	echo "expunge needs Python 3.11 or newer with its venv and ensurepip modules; none was found as: $(or $(PYTHON),python3 python3.14 ... python3.11)." >&2; \
	echo "Install one (on Debian and Ubuntu the packages python3 and python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1; \
fi
endef

# The stamp is written last: an environment without one was interrupted half-way, and is made anew.
$(STAMP): pyproject.toml constraints.txt
	@if [ ! -f $(STAMP) ] || ! $(BIN)/python -c '' 2>/dev/null; then \
		$(FIND_PYTHON); \
		echo "making $(VENV) with $$("$$python" --version)"; \
		rm -rf $(VENV); \
		"$$python" -m venv $(VENV); \
	fi
	@echo "installing what pyproject.toml and constraints.txt say (minutes the first time)"
	@torch="$$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)"; \
	$(PIP) install -qq -c constraints.txt $(PIP_ARGS) "$$torch"; \
	$(PIP) install -qq -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	@touch $(STAMP)

# What only the experiment needs: plots, and a recommender to compare with.
$(BENCHMARKS_STAMP): $(STAMP)
	@$(PIP) install -qq -c constraints.txt $(PIP_ARGS) -e '.[dev,benchmarks]'
	@touch $(BENCHMARKS_STAMP)

# What only breaking needs: a fuzzer and mutants, which not every interpreter has.
$(BREAKING_STAMP): $(STAMP)
	@$(PIP) install -qq -c constraints.txt $(PIP_ARGS) -e '.[dev,breaking]'
	@touch $(BREAKING_STAMP)

.PHONY: install demo serve check pytest test benchmark results results-render faults fuzz mutants compose-test stand-ins reference constraints clean help

install: $(STAMP) ## make the environment (the targets below do so themselves)

demo: $(STAMP) ## tell the whole story on real data; ARGS="--json FILE"
	@$(BIN)/expunge demo $(ARGS)

serve: $(STAMP) ## API, worker and an embedded stream server in one process
	@$(BIN)/expunge serve $(ARGS)

check: $(STAMP) ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: $(STAMP) ## the tests alone; ARGS="tests/unit -x"
	$(PYTEST) $(ARGS)

test: check ## checks and tests
	$(PYTEST) $(ARGS)

benchmark: $(STAMP) ## every figure of the docs, into benchmarks/results
	$(BIN)/python -m benchmarks.main $(ARGS)
	$(BIN)/python -m benchmarks.report

results: $(BENCHMARKS_STAMP) ## measure what the experiment still lacks (hours), then write docs/results
	for grid in main gowalla; do \
		$(BIN)/expunge evaluate benchmarks/grids/$$grid.toml --results benchmarks/results/evaluation \
			--methods-from benchmarks.methods $(ARGS); \
	done
	$(BIN)/python -m benchmarks.evaluation.cases
	$(BIN)/python -m benchmarks.evaluation.main

results-render: $(BENCHMARKS_STAMP) ## write docs/results from the cells that are there; ARGS="--check"
	$(BIN)/python -m benchmarks.evaluation.main $(ARGS)

fuzz: $(BREAKING_STAMP) ## fuzz the parsers of what strangers bring; ARGS="receipts --seconds 600"
	$(BIN)/python -m tests.fuzz $(ARGS)

faults: $(STAMP) ## break everything, then write docs/results/faults.md (hours); ARGS="--only B3"
	$(BIN)/python -m tests.faults.harness $(ARGS)

mutants: $(STAMP) ## change the core modules in small ways; a test must notice (hours; goes on where it was)
	$(BIN)/python -m tests.mutation $(ARGS)

compose-test: ## the compose file in real containers (needs podman and the images; see docs/deployment.md)
	@$(FIND_PYTHON); "$$python" docker/compose_test.py $(ARGS)

stand-ins: ## local stand-ins for the images, where no image registry is reached (root, Debian)
	docker/stand-ins.sh $(ARGS)

reference: $(STAMP) ## write docs/reference.md and docs/data-map.md from the code
	$(BIN)/python docs/generate_reference.py
	$(BIN)/python docs/generate_data_map.py

# A resolve from nothing, so that no package stays that nothing needs. Lines with a marker are for other interpreters
# than this one: they cannot come from a resolve here and are kept as they are.
constraints: ## pin every direct and indirect dependency anew
	@$(FIND_PYTHON); \
	work="$$(mktemp -d)"; trap 'rm -rf "$$work"' EXIT; \
	torch="$$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)"; \
	"$$python" -m venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip --disable-pip-version-check install -qq $(PIP_ARGS) "$${torch:-torch}"; \
	"$$work/venv/bin/python" -m pip --disable-pip-version-check install -qq $(PIP_ARGS) -e '.[dev,benchmarks,breaking]'; \
	{ sed -n '/^#/p' constraints.txt; \
	  { "$$work/venv/bin/python" -m pip --disable-pip-version-check freeze --all --exclude-editable \
		| grep -v -i -E '^(pip=|nvidia-|triton=|cuda-|#)' | sed 's/+[a-z0-9.]*$$//'; \
	    grep ' ; ' constraints.txt || true; } | LC_ALL=C sort -f; } > "$$work/constraints.txt"; \
	mv "$$work/constraints.txt" constraints.txt

clean: ## remove the environment, caches and build output; never a home folder with data
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
