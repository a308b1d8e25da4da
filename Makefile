# `make` lists what there is. Only Python 3.11 or newer and make are needed; the logic is in include/local_stack.

PYTHON ?= python3
VENV ?= .venv
STAY ?= 1
# Processes that run tests; each has a PostgreSQL of its own. A file is not split: its fixtures are made once.
WORKERS ?= 2
PARALLEL := $(if $(filter-out 1,$(WORKERS)),-n $(WORKERS) --dist loadfile)
RUN := $(VENV)/bin/python
export PYTHONPATH := include:plugins
export PYTHONDONTWRITEBYTECODE :=
# Ports of the local stack, e.g. `make demo AIRFLOW_PORT=9080`; empty means the default.
export AIRFLOW_PORT POSTGRES_PORT SANDBOX_PORT LOCAL_POSTGRES

.PHONY: help install pages api-types demo stop status test test-fast fuzz screenshots prove business bench check format lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do \
	  printf '  make %-11s %s\n' "$$name" "$$what"; done

install:  ## virtual environment with the locked packages
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is %s. Name one: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	@PYTHONPATH=include $(PYTHON) -m local_stack.install $(VENV)

pages: install  ## build the front end of the review pages, if something in it changed
	@$(RUN) -m local_stack pages

api-types: install  ## write the API's models as TypeScript for the front end
	@$(RUN) -m local_stack api-types

demo: pages  ## a whole night against the sandbox, then the Airflow UI until Ctrl-C (STAY=0: stop at the end)
	@$(RUN) -m local_stack demo --stay=$(STAY)

status: install  ## what of the local stack is running
	@$(RUN) -m local_stack status

stop:  ## stop what `make demo` started
	@test ! -x $(RUN) || $(RUN) -m local_stack stop

test: pages  ## all tests (ARGS="-k name" chooses, WORKERS=1 runs them one by one)
	$(RUN) -m pytest $(PARALLEL) $(ARGS)

test-fast: pages  ## all tests but those that start Airflow servers
	$(RUN) -m pytest $(PARALLEL) -m "not e2e" $(ARGS)

fuzz: pages  ## generated requests against the pages' API (EXAMPLES=200 of each route)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),200) $(RUN) -m pytest tests/plugins/test_pages_fuzz.py $(ARGS)

screenshots: pages  ## the demo, then pictures of every page into docs/pages/
	@PYTHONPATH=include:plugins:tests/helpers $(RUN) tests/browser/screenshots.py

prove: install  ## the proof campaign: kills, overlaps, faults ... (SEED=7, ARGS="--quick --part kills")
	@PYTHONPATH=include:plugins:tests/helpers:tests $(RUN) -m campaign $(if $(SEED),--seed $(SEED)) $(ARGS)

business: install  ## 15 months of a business against the rules (SEEDS=200, SEED=7, ARGS="--mutations --save")
	@PYTHONPATH=include:plugins:tests/helpers:tests $(RUN) -m business --seeds $(or $(SEEDS),20) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: install  ## the review grid with 100,000 lines in a period, against its bounds (ARGS="--lines 8000")
	@PYTHONPATH=include:plugins:tests/helpers:tests $(RUN) -m bench $(ARGS)

check: install  ## ruff, mypy, sqlfluff, and TypeScript's own check of the pages
	@$(RUN) -m local_stack check

format: install  ## let ruff and sqlfluff mend what they can
	@$(RUN) -m local_stack format

lock: install  ## write the lock files anew from requirements*.txt
	@$(RUN) -m local_stack lock

clean: stop  ## remove all local state (databases, logs, secrets) and caches; the virtual environment stays
	rm -rf .local .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis
	rm -rf plugins/billing_pages/static plugins/billing_pages/frontend/node_modules
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
