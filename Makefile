# Everything a newcomer types. Each target sets up what it needs; `make setup` alone is quick when nothing is to do.
# Variables: STACK=modern (without Horovod, Petastorm and a compiler, in an environment of its own), PYTHON (which
# Python), TORCH_INDEX (an index of torch builds, for example CPU wheels), TESTS (what `make test` runs).
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench chaos clean
export STACK
BIN := $(if $(filter modern,$(STACK)),.venv-modern,.venv)/bin
TESTS ?= -m "not slow"
# Two tests at a time on two cores, at most four; those of a file one after the other.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | tr '@' '\t' | expand -t 18

setup:  ## private environment in .venv: pinned packages, Java, Horovod (STACK=modern: .venv-modern, without Horovod)
	@sh tools/setup.sh

demo: setup  ## raw flight tables to a registered model, on this machine
	@$(BIN)/python examples/flights/fetch.py
	@$(BIN)/pipeline run examples/flights/pipeline.yaml

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: setup  ## lint, then all tests that are not slow
	@$(BIN)/python tools/run_tests.py $(PARALLEL) $(TESTS)

bench: setup  ## measurements that the README quotes
	@$(BIN)/python -m benchmarks

chaos: setup  ## the slow tests: faults thrown at real runs
	@$(BIN)/python tools/run_tests.py -m slow

clean:  ## remove the environment and what runs have left (asks nothing; the per-user wheel cache stays)
	rm -rf .venv .venv-modern .cache .setup.lock build *.egg-info workspace/benchmarks .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf examples/*/workspace examples/*/data spark.log notebooks/spark.log
