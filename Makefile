# Everything here needs Python 3.11, 3.12 or 3.13 and make; the rest is set up by the first call.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
# One thread a process: two small-step training processes on a shared machine
# would otherwise spend their time waiting for each other.
TEST_ENV = OMP_NUM_THREADS=1 SCIPY_ARRAY_API=1
# Where this is set, each of the many processes that tests start compiles torch and
# scikit-learn again, ten seconds instead of four.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-long test-oldest notebooks docs lint format clean

$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; name it with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[test]'
	@touch $@

demo: $(VENV)/installed
	$(BIN)/python examples/quickstart.py

test: $(VENV)/installed
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup

test-slow: $(VENV)/installed
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup -m "slow and not long"

# Slow tests that are like others which test-slow runs.
test-long: $(VENV)/installed
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup -m long

# The lowest versions that pyproject.toml allows, in an environment of their own.
test-oldest:
	$(MAKE) VENV=.venv-oldest UV_RESOLUTION=lowest-direct test

# Runs examples/NN_*.py and renders them; N="01 06" names some.
notebooks: $(VENV)/installed
	$(BIN)/python examples/render.py $(N)

# Builds docs/_build/html without a network and checks every link of it; with
# SKFDAN_DOCS_ONLINE=1 names of other packages are links too.
docs: $(VENV)/installed
	rm -rf docs/_build docs/_examples docs/api/generated
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html
	$(BIN)/python docs/check_links.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-oldest build dist demo-output .pytest_cache .ruff_cache
	rm -rf docs/_build docs/_examples docs/api/generated
