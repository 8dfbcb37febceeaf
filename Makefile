# Everything one does with a clone of Holdfast. On Debian 12 with python3, make and git, each target
# sets up what it needs by itself, as root or as a user who may sudo; the second time it is there.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.NOTPARALLEL:  # one .venv, one step at a time

# Debian's own first: an interpreter below a home folder cannot be run by the other users of tests.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo /usr/bin/python3 || echo python3)
JOBS ?= 2
ARGS ?=

bin := .venv/bin
# Errors only: a pip configured with several indexes warns about each, for each package.
pip := $(bin)/python -m pip --quiet --quiet --disable-pip-version-check
code := $(wildcard src tests servers demo benchmarks)

# A stamp carries a digest of the files it stands for: when they change it is missing, and the step
# runs; when they do not, nothing is installed and the network is not touched.
digest = $(shell cat $(1) 2>/dev/null | sha256sum | cut -c1-16)
product_files := requirements/build.txt requirements/product.txt
server_files := requirements/servers.txt
dev_files := requirements/dev.txt
product := .venv/.product-$(call digest,$(product_files))
dev := .venv/.dev-$(call digest,$(dev_files))
servers := .venv/.servers-$(call digest,$(server_files) scripts/servers)
peers := .venv/.peers-$(call digest,scripts/peers)
project := .venv/.project-$(call digest,pyproject.toml)

.PHONY: help
help:  ## Show this list
	@echo "make TARGET [ARGS='…']"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: install
install: $(product) $(project)  ## Install the product with all extras; then run .venv/bin/holdfast

.PHONY: demo
demo: install $(if $(filter full,$(STACK)),servers)  ## Break a small application and bring it back; STACK=full: with servers
	$(bin)/python -m demo $(if $(STACK),--stack $(STACK)) $(ARGS)

.PHONY: test
test: lint types  ## Lint, types and the whole test suite
	$(bin)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

.PHONY: test-fast
test-fast: develop  ## The tests that need no real store and no patience: under a minute
	$(bin)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

.PHONY: lint
lint: develop  ## Every ruff rule, and the format
	$(bin)/ruff check .
	$(bin)/ruff format --check .

.PHONY: types
types: develop  ## mypy, strict
	$(bin)/mypy $(code)

.PHONY: bench
bench: install servers $(peers)  ## Side by side with the peers (installs them); writes docs/benchmarks.md
	@scripts/setup bench
	$(bin)/python -m benchmarks $(or $(ARGS),--write)

.PHONY: chaos
chaos: develop  ## Kill and starve backups and restores at random; nothing may be lost
	$(bin)/python -m tests.chaos $(ARGS)

.PHONY: servers
servers: $(servers)  ## The servers that tests, the full demo and benchmarks start for themselves

.PHONY: develop
develop: $(dev) $(servers) $(peers) $(project)  ## Install the product and the tools to work on it

.PHONY: requirements
requirements: develop  ## Pin requirements/*.txt again; ARGS=--upgrade takes newer versions
	$(compile) --extra all --group dev --output-file requirements/dev.txt $(ARGS)
	$(compile) --extra all --constraint requirements/dev.txt --output-file requirements/product.txt
	$(compile_group) servers --constraint requirements/dev.txt --output-file requirements/servers.txt
	$(compile_group) build --constraint requirements/dev.txt --output-file requirements/build.txt

# One version for every Python and platform; names no index, so pip uses the one it is given.
compile_options := --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements"
compile = $(bin)/uv pip compile $(compile_options) pyproject.toml
compile_group = $(bin)/uv pip compile $(compile_options) --group

.PHONY: clean
clean:  ## Remove everything make has made
	rm -rf .venv dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# The steps behind the targets -----------------------------------------------------------------

.PHONY: programs
programs:
	@PYTHON='$(PYTHON)' scripts/setup

$(bin)/pip: | programs
	@$(PYTHON) -m venv .venv

$(product): | $(bin)/pip programs
	@echo "Installing the product's requirements into .venv (about half a minute, once)"
	@$(pip) install --require-hashes $(product_files:%=-r %)
	@rm -f .venv/.product-* && touch $@

$(dev): | $(bin)/pip programs
	@echo "Installing the product's requirements and the tools into .venv (about a minute, once)"
	@$(pip) install --require-hashes $(dev_files:%=-r %)
	@rm -f .venv/.dev-* .venv/.product-* && touch $@ $(product)

$(servers): | $(bin)/pip programs
	@echo "Installing the servers that tests and benchmarks use into .venv (about a minute, once)"
	@$(pip) install --require-hashes $(server_files:%=-r %)
	@scripts/servers
	@rm -f .venv/.servers-* && touch $@

$(peers): | $(bin)/pip
	@PYTHON='$(PYTHON)' scripts/setup peers
	@echo "Unpacking restic 0.18 and borg 1.4, which tests and benchmarks use, into .venv"
	@scripts/peers
	@rm -f .venv/.peers-* && touch $@

# In place: a `git pull` needs no new install. The requirements are there already, with hatchling.
$(project): | $(bin)/pip programs
	@$(pip) install --no-index --no-deps --no-build-isolation --editable .
	@rm -f .venv/.project-* && touch $@
