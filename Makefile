# `make help` lists what there is. Each goal does its own set-up.

.DEFAULT_GOAL := help
SHELL := /bin/bash

# Another Python: make PYTHON=/path/to/python3 test
PYTHON = $(shell build-aux/find-python)
VENV := .venv
BIN := $(VENV)/bin

# Arguments for pytest, as in: make test ARGS='tests/ssh -k bind'
ARGS :=
# The tests wait more than they compute, so more of them than there are cores.
WORKERS := 4

# A package index's address and certificates come from the caller's pip configuration.
PIP := $(BIN)/python -I -m pip --quiet --quiet --disable-pip-version-check

.PHONY: help
help: ## list the goals
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Sections of packages.debian; none: all of it.
SECTIONS :=

.PHONY: setup
setup: ## install the missing Debian packages of packages.debian (root or sudo; SECTIONS=demo)
	@build-aux/setup $(SECTIONS)

.PHONY: setup-build setup-demo
setup-build setup-demo: setup-%: ## (likewise, one section)
	@build-aux/setup $*

.PHONY: venv
venv: $(VENV)/ready ## make .venv with hsmagent and all that developing it needs, pinned

$(VENV)/ready: $(VENV)/base | setup
	$(PIP) install --require-hashes --no-deps --only-binary :all: -r requirements/dev.txt
	@touch $@

# Enough to run it from the checkout.
$(VENV)/base: $(VENV)/pins pyproject.toml
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# Built anew whenever a pin changes, so that nothing lingers from older ones. Wheels only: no
# package's own code runs while it is installed.
$(VENV)/pins: requirements/build.txt requirements/dev.txt | setup-build
	@test -n "$(PYTHON)"
	rm -rf $(VENV)
	$(PYTHON) -I -m venv $(VENV)
	$(PIP) install --require-hashes --no-deps --only-binary :all: -r requirements/build.txt
	@touch $@

.PHONY: test
test: venv ## run the tests, as an unprivileged user (ARGS='tests/ssh -k bind' for some of them)
	@$(BIN)/python -m compileall -q hsmagent
	@build-aux/unprivileged $(BIN)/python -m pytest -p no:cacheprovider \
		--numprocesses $(WORKERS) --dist worksteal --timeout 300 $(ARGS)

.PHONY: completions
completions: venv ## make the completions for shells anew (contrib/completions)
	$(BIN)/python build-aux/completions contrib/completions

.PHONY: manpages
manpages: venv ## make the manual pages anew (contrib/man)
	$(BIN)/python build-aux/manpages contrib/man

$(VENV)/docs: $(VENV)/ready requirements/docs.txt
	$(PIP) install --require-hashes --no-deps --only-binary :all: -r requirements/docs.txt
	@touch $@

.PHONY: docs
docs: $(VENV)/docs ## build the site of docs/ into site/, without a warning
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: coverage
coverage: venv ## run the tests and measure what they reach; fails below the bound in .coveragerc
	@build-aux/coverage $(BIN) --numprocesses $(WORKERS) --dist worksteal --timeout 600 $(ARGS)

.PHONY: unused
unused: venv ## functions that no production code calls: only tests do, if anybody
	@$(BIN)/vulture

.PHONY: pictures
pictures: venv ## take the pictures of dialogs and terminals anew (docs/pictures)
	$(BIN)/python -m tests.prompt.pictures docs/pictures
	$(BIN)/python -m tests.guides.pictures docs/pictures
	if command -v thunderbird; then $(BIN)/python -m tests.thunderbird.pictures docs/pictures; fi

.PHONY: soak
soak: venv ## the long tests: every fault at every call, signatures while workers die (ARGS as for test)
	@build-aux/unprivileged $(BIN)/python -m pytest -p no:cacheprovider -p no:logging \
		--numprocesses $(WORKERS) --dist worksteal tests/soak $(ARGS)

# What a run of everything leaves out: two browsers' worth of packages.
.PHONY: thunderbird
thunderbird: venv ## drive a real Thunderbird and a real Firefox, with keys in a token (ARGS as for test)
	@build-aux/setup tests thunderbird
	@build-aux/unprivileged $(BIN)/python -m pytest -p no:cacheprovider tests/thunderbird $(ARGS)

.PHONY: lint
lint: venv unused ## ruff, mypy --strict, shellcheck, vulture
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	git grep --untracked -lE '^#!/bin/(ba)?sh' -- ':!*.py' | xargs shellcheck

.PHONY: format
format: venv ## let ruff put the code in shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Seconds for each parser.
FUZZ_SECONDS := 600

.PHONY: fuzz
fuzz: venv ## fuzz every parser of foreign bytes (FUZZ_SECONDS=600 for each)
	@set -e; for target in $$($(BIN)/python -m tests.fuzz.targets); do \
		echo "fuzzing $$target"; \
		$(BIN)/python -m tests.fuzz.fuzz $$target -max_total_time=$(FUZZ_SECONDS) -verbosity=0; \
	done

# Not empty: a try of two minutes, into build/.
QUICK :=

.PHONY: bench
bench: venv ## measure beside OpenSSH's agent, openssl and gpgsm; writes docs/performance.md (QUICK=1: a try)
	$(BIN)/python -m bench $(if $(QUICK),--quick --output build) $(ARGS)

.PHONY: demo
demo: setup-demo $(VENV)/base ## the main job for real: a token, ssh and git; touches nothing of yours
	@demo/run

.PHONY: fresh
fresh: setup ## demo, tests, an installation by pipx and the Debian package, on fresh systems (root)
	@build-aux/fresh bookworm trixie

.PHONY: dist
dist: venv ## build the source distribution and the wheel into dist/, reproducibly
	@build-aux/dist $(BIN)/python dist

.PHONY: deb
deb: setup ## build the Debian package for Debian 13 into dist/ (root)
	@build-aux/deb trixie dist

.PHONY: release
release: venv ## all that a release consists of, checked, into dist/ (root; RELEASING in CONTRIBUTING.md)
	@build-aux/release $(BIN) dist

.PHONY: pins
pins: ## compile requirements/*.txt anew (ARGS=--upgrade for the newest versions)
	build-aux/pins $(PYTHON) $(ARGS)

.PHONY: clean
clean: ## remove what the other goals made here
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
