# make tile [TILE=DES0239+0216] [CORES=2]   everything for one tile, from a bare machine on
# make test                                 the tests of every commit; test-long, science by hand
# make bench [NGMIX=PYTHON] [MEDS=PYTHON]   the table of speed, beside interpreters that have ngmix, the original meds

TILE ?= DES0239+0216
CORES ?= $(shell nproc)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export BALROG_BASE := $(CURDIR)
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install debian archive tile lint types test test-long science bench clean

help:
	@sed -n '1,3s/^# //p' Makefile
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

bench: $(STAMP)
	python benchmarks/speed.py $(if $(NGMIX),--ngmix $(NGMIX)) $(if $(MEDS),--meds $(MEDS))

clean:
	rm -rf $(VENV) run .snakemake
