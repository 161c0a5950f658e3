# Every target installs what it needs into .venv on a new machine; the second time that costs nothing.

PYTHON ?= python3
VENV ?= .venv
ORACLE ?= .venv-oracle
BIN := $(VENV)/bin
PYTEST := -m pytest -n auto --maxprocesses 4
SECONDS ?= 1200
THREADS ?= 1

# Tests run several processes side by side: one thread each.
test test-all oracle: export OMP_NUM_THREADS = 1

.PHONY: help install demo test test-all lint check format docs oracle bench race clean

help:
	@echo "make demo      train on 5,000 digits and look at the result"
	@echo "make test      the quick tests"
	@echo "make test-all  the slow ones too"
	@echo "make check     format, lint, types and the quick tests"
	@echo "make docs      write docs/methods.md from the docstrings of the methods"
	@echo "make oracle    compare with torchvision, lightly and others, in an environment of its own (6 GB)"
	@echo "make bench     how fast: nearfar and its peers side by side, then docs/speed.png and the table"
	@echo "make race      how good: nearfar and lightly on CIFAR-10, SECONDS each on THREADS cores"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints/core.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints/core.txt -e ".[demo,dev]"
	@touch $@

$(ORACLE)/.installed: pyproject.toml constraints/oracle.txt
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet -c constraints/oracle.txt -e ".[demo,oracle]"
	@touch $@

demo: install
	$(BIN)/python examples/demo.py

test: install
	$(BIN)/python $(PYTEST)

test-all: install
	$(BIN)/python $(PYTEST) -m ""

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint test

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install
	$(BIN)/python docs/generate.py

oracle: $(ORACLE)/.installed
	$(ORACLE)/bin/python $(PYTEST) -m "" tests/oracle

bench: $(ORACLE)/.installed
	$(ORACLE)/bin/python -m benchmarks.speed
	$(ORACLE)/bin/python -m benchmarks.speed.picture

race: $(ORACLE)/.installed
	$(ORACLE)/bin/python -m benchmarks.cifar10_simclr --seconds $(SECONDS) --threads $(THREADS)
	$(ORACLE)/bin/python -m benchmarks.peers.lightly_simclr --seconds $(SECONDS) --threads $(THREADS)
	$(ORACLE)/bin/python -m benchmarks.peers.lightly_simclr --seconds $(SECONDS) --threads $(THREADS) --precision bf16

clean:
	rm -rf $(VENV) $(ORACLE)
