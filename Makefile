# Each command sets up .venv by itself from a bare Python 3.11 and pip.
PYTHON ?= python3
BIN := .venv/bin
# Telemetry of Prefect and of the model hub stays off.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# Where this is set, as in many containers, each process compiles anew all that it imports: half of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all check bench slow

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m deployments.server_database
	touch $@

demo: .venv/.installed   ## the night at small scale: every study, its gates, the report
	$(BIN)/ladder night --profile smoke --budget 1h --no-climb

PEERS := 'lm_eval>=0.4.13' 'torchao>=0.18'
TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile

test: .venv/.installed   ## every default test, in two processes
	$(TESTS)

test-all: .venv/.installed   ## the long ones too: all but what needs hours, a server, an accelerator or the network
	$(TESTS) -m 'not slow and not ollama and not gpu and not hub and not cluster and not postgres'

check: .venv/.installed  ## ruff, mypy strict on every package, then the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TESTS)

# lm_eval and torchao, which benchmarks are timed against, beside .venv and seeing what it holds: transformers
# imports torchao wherever that is installed, which costs seconds and prints warnings.
.venv/peers/.installed: .venv/.installed
	$(PYTHON) -m venv .venv/peers
	for own in .venv/peers/lib/python*; do \
	  echo "../../../../lib/$${own##*/}/site-packages" > $$own/site-packages/lab.pth; \
	done
	.venv/peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PEERS)
	touch $@

bench: .venv/peers/.installed  ## ratios against named peers, each in one run
	$(BIN)/python -m benchmarks

slow: .venv/.installed   ## full simulation and chaos campaigns, every variant of a fault (hours)
	$(BIN)/python -m pytest -m slow --timeout 0
