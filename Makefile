# `make demo` shows what this is; `make test` proves it. Both set up a virtual environment first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test lint setup clean
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/pytest test_cases/test_streaming.py --hil-report=hil-report

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files 'firmware/*.cpp' 'firmware/*.h' | xargs $(BIN)/clang-format --dry-run -Werror

test: lint
	$(BIN)/pytest -q -n auto --dist loadfile tests
	$(BIN)/pytest -q test_cases

clean:
	rm -rf $(VENV) hil-report build dist
