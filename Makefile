# Headwater. A fresh clone needs only Python 3.11+ and make for `make run` and `make test`.

VENV  := .venv
BIN   := $(VENV)/bin
# The first of these that is new enough; PYTHON=/path/to/python make … picks another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# The tests start hundreds of Python processes; with this set, each would compile the whole service again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run dev test test-slow fuzz lint dist audit sbom bench profile clean
.DELETE_ON_ERROR:

help:                ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.dev  ## .venv with everything for running and testing

run: $(VENV)/.run    ## the service, on http://localhost:8080 (settings: docs/settings.md)
	@exec $(BIN)/gunicorn -c gunicorn.conf.py wsgi:app

# Not gunicorn's --reload: its workers are forked from a master that has already imported our worker class, and with it most
# of our modules. SIGINT drains without delay: streams end cleanly, and resume with the new code.
dev: $(VENV)/.dev    ## like run, restarted whenever the code changes; streams end and resume
	@LOG_LEVEL=$${LOG_LEVEL:-debug} SSE_DRAIN_DELAY=0 SSE_DRAIN_WINDOW=0 exec $(BIN)/watchfiles --filter python \
	  "$(BIN)/gunicorn -c gunicorn.conf.py wsgi:app" sse health app.py wsgi.py settings.py gunicorn.conf.py

# How many tests run in parallel; JOBS=0 runs one after the other. Tests mostly wait, so three fit on two cores.
JOBS ?= 3

# Two steps: first the tests that may run in parallel, file by file, then those that need the machine alone. pytest's status
# 5 means that none was selected, which is no failure if the other step had some.
test: $(VENV)/.dev   ## the tests, without the slow ones; ARGS="-k word" picks
	@beside=0; alone=0; \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow and not fuzz and not serial" $(ARGS) \
		|| beside=$$?; \
	case $$beside in 0|1|5) ;; *) exit $$beside ;; esac; \
	$(BIN)/python -m pytest -m "serial and not slow and not fuzz" $(ARGS) || alone=$$?; \
	if [ $$alone -ne 5 ] && { [ $$beside -eq 0 ] || [ $$beside -eq 5 ]; }; then exit $$alone; fi; \
	exit $$beside

test-slow: $(VENV)/.dev  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

fuzz: $(VENV)/.fuzz  ## ten minutes of coverage-guided fuzzing; SECONDS=60 for less
	SECONDS=$(or $(SECONDS),600) $(BIN)/python -m pytest -m fuzz -s tests/fuzz $(ARGS)

lint: $(VENV)/.dev   ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

dist: $(VENV)/.dev   ## the wheel and the sdist, in dist/, checked as a package index would
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

audit: $(VENV)/.audit  ## known vulnerabilities of the pinned packages, by pip-audit; needs the network
	$(VENV)/audit/bin/pip-audit --disable-pip --require-hashes -r requirements.txt -r requirements-dev.txt $(ARGS)

# The image's Python packages; what its base image brings is for a scanner of images. REQUIREMENTS=requirements-otel.txt as in
# the Dockerfile. The tool reads the main component from a pyproject.toml; ours has no version in it.
REQUIREMENTS ?= requirements.txt
SBOM ?= build/sbom.cdx.json
sbom: $(VENV)/.audit ## the image's Python packages, as CycloneDX: build/sbom.cdx.json
	@mkdir -p $(dir $(SBOM))
	@sed -n 's/^VERSION: Final = \(".*"\)/[project]\nname = "headwater"\nlicense = "MIT"\nversion = \1/p' sse/version.py \
	  | PYTHONWARNINGS=ignore $(VENV)/audit/bin/cyclonedx-py requirements $(REQUIREMENTS) --pyproject /dev/stdin \
	  --output-reproducible --spec-version 1.6 --output-file $(SBOM)

bench: $(VENV)/.dev  ## the benchmarks beside the peers; MINUTES=35 bounds them, QUICK=1 is a short run
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(MINUTES),--budget $(MINUTES))

profile: $(VENV)/.dev  ## where the time of a publish and of a delivered event goes; writes docs/profiles/
	$(BIN)/python -m bench.profile

clean:               ## remove .venv, caches and builds; never var/, which has the event log
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: packages are installed once, and again when their list changes.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo >&2 "Headwater needs Python 3.11 or newer. None was found on PATH; \
	install one, or name it: make PYTHON=/path/to/python3.12 …"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo >&2 \
	"Headwater needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1)."; exit 1; }
	@echo "Setting up $(VENV) (once) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) || { echo >&2 "Cannot make a virtual environment; on Debian and Ubuntu: \
	apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.run: requirements.txt $(VENV)/.made
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-otel.txt $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.fuzz: requirements-fuzz.txt $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-fuzz.txt
	@touch $@

$(VENV)/.audit: requirements-audit.txt $(VENV)/.made
	@$(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-audit.txt
	@touch $@
