# make tile [TILE=DES0239+0216] [CORES=2]   everything for one tile, from a bare machine on
# make test                                 the tests of every commit; test-long, science by hand

TILE ?= DES0239+0216
CORES ?= $(shell nproc)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export BALROG_BASE := $(CURDIR)
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install debian archive tile lint types test test-long science clean

help:
	@sed -n '1,2s/^# //p' Makefile
	@echo "make install archive lint clean            the parts"

install: $(STAMP)

debian:
	@PYTHON="$(PYTHON)" bin/install-debian.sh

$(STAMP): requirements.txt pyproject.toml | debian
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

archive: $(STAMP)
	balrog archive "$(TILE)"

tile: archive
	snakemake --cores $(CORES) tile=$(TILE)
	balrog summary "$(TILE)"

lint: $(STAMP)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	mypy

test: lint
	pytest -m "not long and not science" -n 2

test-long: $(STAMP)
	pytest -m long -n 2

science: $(STAMP)
	pytest -m science -rP

clean:
	rm -rf $(VENV) run .snakemake
