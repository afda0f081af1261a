# Everything happens in .venv; nothing needs root, a running Redis or the hub.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests start hundreds of processes; where the caller forbids compiled files, each would compile what it imports again.
unexport PYTHONDONTWRITEBYTECODE
# A test that a machine cannot run (no Prometheus, no redis-server) says so and is skipped; CI has them all.
# Three at a time: most of them wait for other processes. A file's tests stay together, for they share what they start.
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: help demo demo-policy test check site nightly conformance fmt bench chaos recording soak fuzz audit dashboards-preview install clean

help:
	@echo "make demo    see Sluice work, with a Redis and a model of its own"
	@echo "make demo-policy  see a policy change: sentence, calibration, back-test, shadow, promotion; two minutes"
	@echo "make test    run the tests, less those that take minutes"
	@echo "make check   what CI runs: format, lint, import contracts, types, links, tests"
	@echo "make nightly what make check leaves out: workers killed under load, benchmarks, RQ's tests in small"
	@echo "make conformance  run RQ's own tests against the worker, beside the same run with RQ's worker"
	@echo "make site    the documentation as a site, in build/site"
	@echo "make audit   known holes and licences of what is installed; needs the network"
	@echo "make fmt     format and mend what can be mended"
	@echo "make bench   measure; prints ratios, judges nothing"
	@echo "make chaos   kill workers, models and Redis for ten minutes, and count the verdicts"
	@echo "make soak    one worker at a steady pace for half an hour: memory and latency; ARGS=\"--minutes N\" makes it shorter"
	@echo "make fuzz    feed decoders with broken files for five minutes; ARGS=\"--seconds N\" makes it shorter"
	@echo "make dashboards-preview  play all that can go wrong to a real Prometheus, and draw the dashboards from it"
	@echo "make recording  type the commands of the README's picture anew"
	@echo "make install make .venv with everything that development needs"
	@echo "make clean   remove what the others made"

install: $(VENV)/.installed

# torch comes first and pinned: a looser range would bring gigabytes of CUDA libraries.
# Python compiles what is imported; the rest of these packages, which is most of it, would take a minute.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sluice needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/sluice demo

# The way of a policy: a stream, a changed sentence, a calibration, a back-test, a shadow, a promotion.
demo-policy: install
	$(BIN)/python -m tools.demo_workbench build/demo-policy

test: install
	$(PYTEST) -m "not chaos and not nightly and not thorough"

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(SITE) --quiet
	$(PYTEST)

# The pages of docs/, with the README in front, in build/site; every link must lead somewhere.
site: install
	$(SITE)

nightly: install
	$(PYTEST) -m nightly

# Downloads RQ's source distribution; ten minutes. ARGS="--keep-baseline tests/test_retry.py" makes it shorter.
conformance: install
	$(BIN)/python -m tools.conformance $(ARGS)

# Asks the package index for advisories; exit code 3 where it has no answer.
audit: install
	$(BIN)/python -m tools.audit

fmt: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/sluice bench queue
	$(BIN)/sluice bench encoder
	$(BIN)/sluice bench pipeline

chaos: install
	$(BIN)/pytest -m chaos -s

# Types the commands of the README's picture anew; half a minute.
recording: install
	$(BIN)/python -m tools.recording

soak: install
	$(BIN)/python -m tools.soak $(ARGS)

# Asks a Prometheus that has scraped workers; writes build/dashboards.html. ARGS="--prometheus http://127.0.0.1:9090".
dashboards-preview: install
	PYTHONPATH=.:tests $(BIN)/python -m played --draw build/dashboards.html $(ARGS)

fuzz: install
	PYTHONPATH=.:tests $(BIN)/python -m fuzz $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
