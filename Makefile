# Gillnet's commands. Each does its own set-up; a second call finds it done. CI calls the same targets.
#
#   make demo            both scenarios in one process, about a minute     make demo KAFKA=1   the same through a real broker
#   make test            everything that CI holds the project to
#   make help            the rest
#
# Set-up leaves stamps in .venv, so that a changed lock file, pyproject or Rust source does again just what it must.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
KAFKA ?=
BENCH ?=
FUZZ ?= 60
SOAK ?= 30

VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
FUZZ_VENV := .venv-fuzz
AUDIT_VENV := .venv-audit
CARGO_DENY := 0.20.2
OTHER_BENCHES := delivery memory_flat hot_key score_rows revisions batch_twin batch_memory patterns joins snapshot checkpoints state_backend
PIP := -m pip --disable-pip-version-check --quiet
PACKAGING := pyproject.toml README.md LICENSE
JAVA_SOURCES := $(shell find java/src -name '*.java')
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find crates -name '*.rs' -o -name Cargo.toml)

# One profile for every cargo command: clippy, tests and the extension module share what they compile of the
# dependencies. `make test-deep` runs the tests once more with overflow checks and debug assertions.
CARGO_FLAGS := --release --workspace --locked

# ---- what people call ------------------------------------------------------------------------------------------------

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: demo
demo: $(if $(KAFKA),check-kafka) setup ## both scenarios; KAFKA=1: through a real broker
	@$(BIN)/gillnet demo $(if $(KAFKA),--kafka)

.PHONY: test
test: check-kafka check-flink lint test-rust test-python ## what CI runs: lint, types, layers, Rust, Python, the real Kafka, Pulsar and Flink

.PHONY: lint
lint: setup ## ruff, mypy, import-linter, rustfmt, clippy
	@echo "== ruff"
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check .
	@echo "== layers (import-linter)"
	$(BIN)/lint-imports
	@echo "== types (mypy)"
	$(BIN)/mypy
	@echo "== rustfmt, clippy"
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy $(CARGO_FLAGS) --all-targets --quiet -- -D warnings

.PHONY: format
format: setup ## let the formatters change the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --all

.PHONY: test-rust
test-rust: check-tools ## the Rust tests
	@echo "== Rust tests"
	cargo test $(CARGO_FLAGS) --quiet

.PHONY: test-python
test-python: check-kafka check-flink setup java ## every Python test, the real Kafka, Pulsar and Flink and the examples in docstrings included
	@echo "== Python tests, with the real Kafka, Pulsar and Flink"
	$(BIN)/pytest

.PHONY: test-unit
test-unit: setup ## the Python tests that need no broker and no cluster
	$(BIN)/pytest -m "not kafka and not pulsar and not flink"

.PHONY: test-integration
test-integration: check-kafka setup ## the Python tests that need a broker, Kafka or Pulsar
	$(BIN)/pytest -m "kafka or pulsar"

.PHONY: test-flink
test-flink: check-flink setup java ## the Python tests that need a Flink cluster
	$(BIN)/pytest -m flink

.PHONY: test-deep
test-deep: setup fuzz ## 10,000 examples a property, 1,000 seeds of faults, a minute of fuzzing a target, overflow checks; hours
	cargo test --workspace --locked --quiet
	HYPOTHESIS_PROFILE=deep $(BIN)/pytest tests/simulation tests/property --timeout=0

.PHONY: fuzz
fuzz: setup $(FUZZ_VENV)/.installed ## every fuzz target for FUZZ=60 seconds; TARGETS="snapshot uri" for some
	fuzz/run.sh $(FUZZ) $(TARGETS)

.PHONY: soak
soak: check-kafka setup ## SOAK=30 minutes at a steady rate on a real broker: memory, handles and disk must be flat
	$(BIN)/python -m bench.soak --minutes $(SOAK)

.PHONY: audit
audit: $(AUDIT_VENV)/.installed ## vulnerabilities, licences and sources of what Gillnet depends on; STRICT=1
	PATH="$(abspath $(AUDIT_VENV))/bin:$$PATH" $(AUDIT_VENV)/bin/python scripts/audit.py $(if $(STRICT),--strict)

.PHONY: bench
bench: check-kafka $(BENCH_VENV)/.installed ## speed, CPU, memory and latency beside others; BENCH="-m bench.payments.latency …"
	$(BENCH_VENV)/bin/python $(or $(BENCH),-m bench.payments.run)
	$(if $(BENCH),,$(foreach other,$(OTHER_BENCHES),$(BENCH_VENV)/bin/python -m bench.$(other) &&) true)

.PHONY: report
report: check-kafka setup ## how well the scenarios catch, by the simulator's labels; the first two through a real broker as well
	$(BIN)/python -m gillnet.lifecycle.report_payments --kafka
	$(BIN)/python -m gillnet.lifecycle.report_bots --kafka
	$(BIN)/python -m gillnet.lifecycle.report_takeover

.PHONY: java
java: java/target/gillnet-flink.jar ## Gillnet's jar for Flink, with the kernel's library in it

.PHONY: dist
dist: setup ## the wheel and the source distribution
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist
	$(BIN)/maturin sdist --out dist

.PHONY: lock
lock: ## refresh requirements/*.lock from pyproject.toml; UPGRADE=1 takes the newest
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## remove what the targets above made in this directory
	rm -rf $(VENV) $(BENCH_VENV) $(FUZZ_VENV) $(AUDIT_VENV) .venv-lock target fuzz/found dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests bench scripts -name __pycache__ -prune -exec rm -rf {} +
	rm -f src/gillnet/_kernel*.so

# ---- set-up ----------------------------------------------------------------------------------------------------------

.PHONY: setup check-tools check-kafka check-flink
setup: $(VENV)/.built ## the environment with Gillnet in it

check-tools:
	@$(PYTHON) scripts/check_prerequisites.py build

# It stands before `setup`: what is missing is said before minutes of building.
check-kafka:
	@$(PYTHON) scripts/check_prerequisites.py kafka

check-flink:
	@$(PYTHON) scripts/check_prerequisites.py flink

# `| check-tools`: the check runs first and says in one paragraph what is missing; it does not make the stamp older.
$(VENV)/.locked: requirements/dev.lock | check-tools
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== locked dependencies, into $(VENV)"
	$(BIN)/python $(PIP) install --require-hashes -r requirements/dev.lock
	@touch $@

# The library is what the workspace's other targets build too; without its symbols it is a seventh of the size.
java/target/gillnet-flink.jar: java/pom.xml $(JAVA_SOURCES) $(RUST_SOURCES) | check-tools check-flink
	@echo "== the jar for Flink"
	cargo build --release --locked --quiet -p gillnet-jni
	mkdir -p java/target/native/linux-$$(uname -m)
	strip -o java/target/native/linux-$$(uname -m)/libgillnet_jni.so "$${CARGO_TARGET_DIR:-target}/release/libgillnet_jni.so"
	mvn --quiet --batch-mode --file java/pom.xml package
	@touch $@

# Cargo builds only what changed, and maturin puts the module beside the Python sources: those need no second install.
$(VENV)/.built: $(VENV)/.locked $(PACKAGING) $(RUST_SOURCES)
	@echo "== the kernel (minutes the first time)"
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python $(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(BENCH_VENV)/.installed: requirements/bench.lock $(PACKAGING) $(RUST_SOURCES) | check-tools
	test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python $(PIP) install --require-hashes -r requirements/bench.lock
	PATH="$(abspath $(BENCH_VENV))/bin:$$PATH" $(BENCH_VENV)/bin/python $(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

# Python's fuzz targets see the sources and the kernel of this directory: nothing of Gillnet is installed beside them.
$(FUZZ_VENV)/.installed: requirements/fuzz.lock | check-tools
	test -x $(FUZZ_VENV)/bin/python || $(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python $(PIP) install --require-hashes -r requirements/fuzz.lock
	@touch $@

$(AUDIT_VENV)/.installed: requirements/audit.lock | check-tools
	test -x $(AUDIT_VENV)/bin/python || $(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python $(PIP) install --require-hashes -r requirements/audit.lock
	command -v cargo-deny || cargo install cargo-deny --version $(CARGO_DENY) --locked --quiet --root $(AUDIT_VENV)
	@touch $@
