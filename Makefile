# The two commands are `make train` and `make test`; each sets up .venv first if that is needed.
#   make train ARGS="seed=1 policy.steps=20"      overrides of the recipe
#   make train RECIPE=recipes/other.yaml
#   make test ARGS="-k calculator"                options of pytest; ARGS="-n 0" runs all in one process
#   make setup PYTHON=python3.12                  the interpreter that makes .venv

RECIPE ?= recipes/wordmath.yaml
ARGS ?=
export PYTHON
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-vllm train test check lint types bench clean

help:
	@echo "make train   set up, then train a tool-using agent with $(RECIPE) (ARGS: overrides)"
	@echo "make test    set up, then run the whole test suite (ARGS: options of pytest)"
	@echo "make check   set up, then lint, formatting, room borders and types"
	@echo "make bench   set up with what the benchmarks need, then run them (ARGS: options)"
	@echo "make setup   only the set-up: .venv with everything; a second call installs nothing"
	@echo "make setup-vllm  vLLM besides: its CPU build where there is no GPU; make test does it, too"
	@echo "make clean   remove build products and caches; .venv and runs/ stay"

setup:
	@scripts/setup.sh

setup-vllm:
	@scripts/setup.sh vllm

train: setup
	$(BIN)/ludus train $(RECIPE) $(ARGS)

test: setup-vllm
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: lint types

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The rooms stand at the top and are installed under ludus.*: these two read them under their installed names.
types: setup
	@$(BIN)/python scripts/installed_tree.py .typecheck
	cd .typecheck && ../$(BIN)/lint-imports --config ../pyproject.toml --cache-dir ../.import_linter_cache --no-logo
	$(BIN)/mypy .typecheck/ludus

bench:
	@scripts/setup.sh bench
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf build dist ludus.egg-info .typecheck .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./.venv/*" -prune -exec rm -rf {} +
