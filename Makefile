# Each target does its own set-up: a virtual environment in .venv with the pinned versions of constraints.txt.
# Any Python from 3.11 to 3.14; the first that is there. `make PYTHON=python3.13 test` takes another.
PYTHON ?= $(firstword $(foreach it,python3.11 python3.12 python3.13 python3.14 python3,$(if $(shell command -v $(it)),$(it))))
BIN := .venv/bin
# Tests start a thousand processes: with bytecode none of them compiles the package anew, with a thread each they leave each other cores.
unexport PYTHONDONTWRITEBYTECODE
test ordeals quick: export OMP_NUM_THREADS := 1

.PHONY: ablate test ordeals quick gpu check bench docs clean

ablate: .venv/installed  ## the main job on embedded images: every change of task3, three seeds, a table of effects
	$(BIN)/harness ablate --study task3 --profile quick

test: .venv/installed  ## the tests but the ordeals; no GPU, network or data set needed
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not ordeal" --durations=15 --durations-min=5

ordeals: .venv/installed  ## kills, clusters, frameworks, peers and simulations that take 8 s and more, each; CI runs them, too
	$(BIN)/python -m pytest -n 3 --dist worksteal -m ordeal --durations=15 --durations-min=5

quick: .venv/installed  ## the tests without servers, browsers, simulations, wheel builds and whatever takes a second: while one works
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow and not ordeal"

gpu: .venv/installed  ## what only a CUDA device can show; the first thing to run on a machine that has one
	$(BIN)/python tests/gpu.py

check: .venv/installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed  ## speed against peers, side by side; see benchmarks/README.md
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

# Of 27,000 files some thousand are ever imported: compiled then, not by pip, one after the other.
.venv/installed: pyproject.toml constraints.txt harness/trainers/images/kernels/_winograd.c
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info harness/trainers/images/kernels/*.so .mypy_cache .ruff_cache .pytest_cache

docs: .venv/installed  ## the documentation, in build/docs; strict: a dead link is an error
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
