# make tile [TILE=DES0239+0216] [CORES=2]   everything for one tile, from a bare machine on
# make test                                 the tests of every commit; test-long, chaos, science by hand
# make campaign [DIRECTORY=...]             twenty small tiles, two of them broken, to the campaign's report
# make docs                                 the documents and the API as a site, build/docs/index.html
# make bench [NGMIX=PYTHON] [MEDS=PYTHON]   the table of speed, beside interpreters that have ngmix, the original meds

TILE ?= DES0239+0216
CORES ?= $(shell nproc)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs
export BALROG_BASE := $(CURDIR)
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install debian services archive tile lint types test test-long chaos science campaign docs bench clean

help:
	@sed -n '1,5s/^# //p' Makefile
	@echo "make install services archive lint clean   the parts"

install: $(STAMP)

debian:
	@PYTHON="$(PYTHON)" bin/install-debian.sh

services:
	@PYTHON="$(PYTHON)" bin/install-debian.sh services

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
	pytest -m "not long and not science and not chaos" -n 2 --durations 25

test-long: $(STAMP) services
	pytest -m long -n 2 --maxschedchunk 1 --durations 60

chaos: $(STAMP) services
	unshare $(if $(filter-out 0,$(shell id -u)),--map-root-user) --mount $(BIN)/python -m pytest -m chaos tests/chaos -rP

science: $(STAMP)
	pytest -m science -rP

campaign: $(STAMP)
	python tests/small_campaign.py "$(or $(DIRECTORY),$(shell mktemp -d))" --cores $(CORES)

$(DOCS): docs/requirements.txt $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -r $<
	touch $@

docs: $(DOCS)
	mkdocs build --strict --quiet

bench: $(STAMP)
	python benchmarks/speed.py $(if $(NGMIX),--ngmix $(NGMIX)) $(if $(MEDS),--meds $(MEDS))

clean:
	rm -rf $(VENV) run .snakemake
