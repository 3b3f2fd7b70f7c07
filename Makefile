# make book    installs what is needed into .venv, runs the notebooks, builds the book
# make test    installs what is needed into .venv, runs all tests, those in a browser too (after `make book`)
# Run again, both redo only what has changed.

PYTHON ?= python3
BIN := .venv/bin
BOOK := _build/html/index.html

# Whatever a test may depend on; file times decide, so this also works without git.
SOURCES := $(shell find vitcnn_utils notebooks book tests benchmarks .ci .github -type f \
	-not -path '*/__pycache__/*' -not -path '*/.ipynb_checkpoints/*' 2>/dev/null)
PROJECT := Makefile pyproject.toml requirements.lock environment.yml README.md CITATION.cff

.PHONY: book test clean

book: .venv/installed
	$(BIN)/vitcnn run zoo
	$(BIN)/vitcnn book

test: _build/tested

_build/tested: .venv/installed $(SOURCES) $(PROJECT) $(wildcard $(BOOK))
	@$(BIN)/python tests/book/browser.py
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	@mkdir -p $(@D) && touch $@

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf .venv _build
