# SPDX-License-Identifier: Apache-2.0
# Each target sets up what it needs first; PYTHON=python3.12 and TORCH_INDEX_URL=... are explained in README.md.
BIN := .venv/bin

.PHONY: help demo test bench setup compiled interpreted clean

help:
	@echo "make demo    five nodes on this machine classify the shipped images; summary in out/demo/summary.json"
	@echo "make test    everything that CI checks"
	@echo "make bench   (compiled) frames/s through the graph against a bare loop and other libraries; out/bench/results.json"
	@echo "make setup   only the environment, .venv"
	@echo "make compiled     turns the decision code of this checkout into C extensions; make interpreted takes them away"
	@echo "make clean   removes the environment and all outputs"

setup:
	@command -v $(or $(PYTHON),python3) >/dev/null || { echo "error: $(or $(PYTHON),python3) is not installed; \
	Python 3.11, 3.12 or 3.13 is needed, for example: sudo apt install python3 python3-venv python3-dev" >&2; exit 2; }
	@$(or $(PYTHON),python3) scripts/setup_environment.py

compiled: setup interpreted
	MDI_EXIT_COMPILED=1 $(BIN)/python setup.py --quiet build_ext --inplace --build-temp build/compiled --build-lib build/compiled

interpreted:
	rm -rf build/compiled src/mdi_exit_ros/*.so src/mdi_exit_ros/policy/*.so

demo: setup
	$(BIN)/mdi-exit run --topology three_mesh --strategy mdi_exit --json out/demo/summary.json

bench: compiled
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-bench.txt
	$(BIN)/mdi-exit bench --json out/bench/results.json

test: setup interpreted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

clean: interpreted
	rm -rf .venv .venv.lock build install log out
