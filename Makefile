# Two commands for newcomers: `make demo` and `make test`. Both need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test unit check bench clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	@exec $(BIN)/python -m example_app.lab

test: $(INSTALLED) check
	$(BIN)/python -m pytest

# The part without servers: seconds, for the edit loop.
unit: $(INSTALLED)
	$(BIN)/python -m pytest tests/unit

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) dist

# pip >= 25.1 reads dependency groups. The constraints are the versions that were tested.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[postgresql,prometheus,speed]' --group check
	@touch $@
