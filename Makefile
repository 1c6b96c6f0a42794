# `make` lists the targets. Each one that needs packages installs them first, on a machine that only has Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
QUIET := $(if $(MAKE_TERMERR),,--quiet) # progress bars for people only

# Stamps: what is installed. Each one contains the one before.
BASE := $(VENV)/.base
TEST := $(VENV)/.test
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check format docs measure-code clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BASE)  ## search focal_gamma on the embedded data, in the folder demo/
	@mkdir -p $(DEMO)
	cd $(DEMO) && ../$(BIN)/search run --study focal_gamma

test: $(TEST)  ## run all tests
	$(BIN)/python -m pytest tests -n 2 --dist loadgroup --no-loadscope-reorder

check: $(DEV)  ## lint, check types and the rules for imports, lengths and names
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/unit/test_structure.py

format: $(DEV)  ## lay the code out, and fix what the linter can fix by itself
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(TEST)  ## check the documentation: run its examples, follow its links
	$(BIN)/python -m pytest -m docs tests

measure-code: $(DEV)  ## print the figures of the code: lengths of lines, files and functions, names, words
	$(BIN)/python -m benchmarks.code_figures

clean:  ## remove what demo and tests left; the environment stays
	rm -rf $(DEMO) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# uv installs the same much faster than pip. Where it cannot be had, or cannot install, pip does it.
define install
	@echo "installing $(1) into $(VENV); PyTorch is a download of 3 GB, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv \
		&& $(BIN)/uv pip install $(QUIET) --system-certs --python $(BIN)/python -c constraints.txt -e '$(1)' \
		|| $(BIN)/python -m pip install $(QUIET) --disable-pip-version-check --no-compile -c constraints.txt -e '$(1)'
	@touch $(2)
endef

$(BASE): pyproject.toml constraints.txt
	$(call install,.,$(BASE))

$(TEST): pyproject.toml constraints.txt
	$(call install,.[test],$(BASE) $(TEST))

$(DEV): pyproject.toml constraints.txt
	$(call install,.[dev],$(BASE) $(TEST) $(DEV))
