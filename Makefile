# One command per habit. Each runs in .venv, which the first one makes and a change of pyproject.toml renews.
PYTHON ?= python3
EXTRAS := dev,docs,train,sfm,poselib,fast,onnx
BIN := .venv/bin

.PHONY: demo test test-all check bench
demo: .venv/installed  # two real photographs in; matches, their accuracy and a picture out
	$(BIN)/python -m lisrd.demo
test: .venv/installed  # the fast tests, about a minute
	$(BIN)/python -m pytest
test-all: .venv/installed  # the slow ones as well
	$(BIN)/python -m pytest -m ""
check: .venv/installed  # lint, format, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
bench: .venv/installed  # speed beside its baselines; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.run

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@
