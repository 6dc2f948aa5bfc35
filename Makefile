# One command per habit. Each runs in .venv, which the first one makes and a change of pyproject.toml renews.
PYTHON ?= python3
EXTRAS := dev,docs,train,sfm,poselib,fast,onnx
BIN := .venv/bin

SECONDS ?= 1800
SEED ?= 0
CALLS ?= 5000

.PHONY: demo test test-all fresh check bench fuzz soak audit
demo: .venv/installed  # two real photographs in; matches, their accuracy and a picture out
	$(BIN)/python -m lisrd.demo
test: .venv/installed  # the fast tests, about a minute
	$(BIN)/python -m pytest
test-all: .venv/installed  # the slow ones as well
	$(BIN)/python -m pytest -m ""
fresh: .venv/installed  # the wheel with each extra alone: tutorials, page, ONNX, Ray, in new environments under out/fresh
	rm -rf out/fresh && LISRD_FRESH=out/fresh $(BIN)/python -m pytest -m "" tests/test_fresh_environments.py
check: .venv/installed  # lint, format, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
bench: .venv/installed  # speed beside its baselines; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.run
fuzz: .venv/installed  # the readers on mutated files for SECONDS; what it finds stays in tests/fuzz/corpus
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[fuzz]"
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) --seed $(SEED)
soak: .venv/installed  # CALLS describe-and-match calls: memory, threads and files must not grow
	LISRD_SOAK_CALLS=$(CALLS) $(BIN)/python -m pytest -m "" -s tests/test_reliability_soak.py
audit: .venv/installed  # known vulnerabilities of what is installed, and every licence
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[audit]"
	$(BIN)/pip-licenses --from=mixed --order=license && $(BIN)/pip-audit --skip-editable

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@
