# make run                 a server on http://127.0.0.1:8888, with the demo chat
# make test                lint, type checks and tests
# make test-lower-bounds   tests of code that uses the dependencies, with the oldest versions that setup.cfg allows
# make compiled            a build with its hot modules compiled, in build/compiled; needs a C compiler and python3-dev
# make test-compiled       the tests of these modules, with that build
# make lint                ruff and mypy alone
# make npm                 the browser client as an npm package, in build/npm; needs Node.js
# make reach               every browser behind every proxy on every network; writes docs/reach.md (about 50 minutes)
# make clients             the programs of docs/clients.md through rotation, restart, 502, idle; writes its table (about 6 minutes)
# make bench               the figures, against Nchan and others, with BEFORE=PATH against another checkout too (about 30 minutes)
# make fuzz                what reads the input of strangers, each for a minute under atheris (ARGS="head token --seconds 600")
# make soak                all stores for ten minutes, while processes are killed; writes docs/soak.md
# make siege               15,000 hostile clients beside 1,000 good ones (about three minutes)
# make clean               removes the environments and builds
#
# ARGS="…" adds options of the server, of pytest or of the benchmark. PYTHON=python3.12 chooses another Python.

## Prefer the distribution's Python: it is built with profile-guided optimisation, about 20 % faster.
PYTHON ?= $(firstword $(foreach p,/usr/bin/python3 python3,$(shell $(p) -c 'import sys, venv, ensurepip; \
	sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))) python3)
VENV := .venv
LOWER := .venv-lower-bounds
FUZZ := .venv-fuzz
COMPILED := build/compiled
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' pushcompat/__init__.py)
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test test-lower-bounds compiled test-compiled lint npm reach clients bench soak siege fuzz clean

help:
	@sed -n 's/^#\( \|$$\)//p' Makefile

run: $(VENV)/installed
	$(BIN)/python -m pushcompat --demo $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

test-lower-bounds: $(LOWER)/installed
	$(LOWER)/bin/python -m pytest -q $(ARGS) \
		tests/access tests/client tests/contrib tests/hub tests/store tests/web tests/wire tests/test_*.py \
		--ignore tests/web/test_chat_page.py --ignore tests/web/test_hostile_pages.py --ignore tests/test_workers.py --ignore tests/store/test_sharing.py \
		--ignore tests/test_answer.py --ignore tests/test_frontend.py \
		--deselect tests/test_packaging.py::test_a_compiled_build_says_so_and_serves

compiled: $(COMPILED)/built

test-compiled: $(COMPILED)/built
	cp -r tests docs setup.cfg $(COMPILED)
	cd $(COMPILED) && $(CURDIR)/$(BIN)/python -m pytest -q $(ARGS) \
		tests/access tests/hub tests/wire tests/store/test_memory.py tests/store/test_receipts.py \
		tests/parity/test_scenarios.py

lint: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

npm: npm/node_modules/installed
	node npm/build.js $(VERSION) build/npm

reach: $(VENV)/installed-proxies
	cd tests/reach && npm install --silent --no-audit --no-fund --no-package-lock
	$(BIN)/python -m tests.reach.matrix $(ARGS)

clients: $(VENV)/installed-test
	$(BIN)/python -m tests.languages.matrix $(ARGS)

bench: $(VENV)/installed $(COMPILED)/built
	$(BIN)/python bench/run.py --compiled $(COMPILED) $(if $(BEFORE),--before $(BEFORE)) $(ARGS)

soak: $(VENV)/installed-test
	$(BIN)/python -m tests.soak --report docs/soak.md $(ARGS)

fuzz: $(FUZZ)/installed
	$(FUZZ)/bin/python -m tests.fuzz $(ARGS)

siege: $(VENV)/installed-test
	$(BIN)/python -m tests.siege $(ARGS)

clean:
	rm -rf $(VENV) $(LOWER) $(FUZZ) build dist bench/build *.egg-info

$(VENV)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is required; select one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

## The proxies of tests/reach that Debian lacks. Next.js is for "make reach" only, because it is large.
$(VENV)/installed-proxies: setup.cfg tests/reach/package.json $(VENV)/installed-test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,proxies]'
	cd tests/reach && npm install --silent --no-audit --no-fund --no-package-lock --omit=dev
	@touch $@

npm/node_modules/installed: npm/package.json
	cd npm && npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@

$(FUZZ)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/pip install --quiet --disable-pip-version-check --editable '.[test]' 'atheris>=3'
	@touch $@

$(COMPILED)/built: $(VENV)/installed-test setup.py $(shell find pushcompat -name '*.py')
	rm -rf build
	PUSHCOMPAT_COMPILE=1 $(BIN)/python setup.py --quiet build --build-lib $(COMPILED)
	@touch $@

## "name>=1.2" and "name[extra]>=1.2" in setup.cfg become the constraint "name==1.2".
$(LOWER)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -m venv $(LOWER)
	sed -n 's/^    \([a-z-]*\)\(\[[a-z]*\]\)\?>=\([0-9.]*\)$$/\1==\3/p' setup.cfg >$(LOWER)/constraints.txt
	$(LOWER)/bin/pip install --quiet --disable-pip-version-check -c $(LOWER)/constraints.txt --editable '.[test]'
	@touch $@
