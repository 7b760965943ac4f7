# Each target sets up the virtual environment first, with the versions of constraints.txt.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
JUNIT := build/junit
WORKERS ?= 4 # half of the tests' time is waiting for devices and deadlines
# Hundreds of processes import the same modules: they are compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
IMPORTED := import bokeh, pytest_embedded_idf.serial, pytest_embedded_serial_esp, torch.onnx.utils, espdl_hil.quantize.worker; \
            import espdl_hil.plugin.session, espdl_hil.proof.verify, espdl_hil.simulator
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema

# Rooms whose tests start processes, compilers, exporters or whole devkits, random campaigns, and sweeps of all int16:
# too slow before each commit. The rest knows no pytest, so pytest-embedded's fixtures around each test are left out.
SLOW_ROOMS := cli device firmware hostile models plugin proof quantize reference simulator streaming
SLOW_FILES := test_property*.py test_casts.py test_browser.py
QUICK := $(SLOW_ROOMS:%=--ignore=tests/%) $(SLOW_FILES:%=--ignore-glob='*/%') \
         -p no:espdl_hil.plugin -p no:pytest_embedded

.DEFAULT_GOAL := help
.PHONY: help demo quick test tests lint setup clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

demo: setup ## the model zoo on simulated devkits, with a report (3 minutes from a fresh clone)
	$(BIN)/pytest test_cases/test_streaming.py --hil-report=hil-report

quick: lint ## before each commit, under a minute: linters, types, quick tests, one row
	$(BIN)/pytest -q -x -n auto --dist loadfile $(QUICK) tests
	$(BIN)/pytest -q -k '[esp32s3-tcn-int8-chunk3]' test_cases

test: setup ## everything: linters, types, all tests with C++ sanitizers, the zoo
	$(MAKE) --jobs=2 lint tests
	$(BIN)/pytest -q -n auto --junitxml=$(JUNIT)/zoo.xml test_cases

tests: setup
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --junitxml=$(JUNIT)/tests.xml tests

lint: setup ## format, lint, types, imports between rooms, CI files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files 'firmware/*.cpp' 'firmware/*.h' | xargs $(BIN)/clang-format --dry-run -Werror
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

setup: $(VENV)/.ready ## the virtual environment

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q harness
	$(BIN)/python -c '$(IMPORTED)' >/dev/null # pip compiles all there is, which takes a minute
	touch $@

clean: ## remove the virtual environment, builds and reports
	rm -rf $(VENV) hil-report build dist
