# `make` lists the targets. All of them use .venv, and build it if it is missing.
PYTHON ?= python3
# macOS's make looks for the programs of simple lines in its own PATH, unless SHELL is set.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help setup repro test test-fast check report compare demo pictures templates verify seeds course pitfalls shortcut bench gpu ham10000

help:  ## list the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /\1\t/' | expand -t 12

setup: .venv/ready  ## build .venv with the tested versions

# An environment works only where it was made: after the project was moved or copied, it is made again.
ifneq ($(shell cat .venv/ready 2> /dev/null),$(CURDIR))
.PHONY: .venv/ready
endif

.venv/ready: pyproject.toml constraints.txt
	@if [ -s .venv/ready ] && [ "$$(cat .venv/ready)" != "$(CURDIR)" ]; then \
		echo ".venv was made in $$(cat .venv/ready): it is made again"; rm -r .venv; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[dev]'
	@echo "$(CURDIR)" > $@

.venv/extras: .venv/ready
	$(INSTALL) '.[dev,demo,duplicates,export,labels,s3,servers]'
	@touch $@

repro: setup  ## run the whole pipeline (dvc repro)
	@git rev-parse --git-dir > /dev/null || { echo 'DVC needs a git repository. If there is none: git init && git add --all && git commit --message start'; exit 2; }
	dvc repro
	@dvc metrics show

test: .venv/extras  ## run the tests
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadgroup

test-fast: .venv/extras  ## run the tests without the slow ones (3 minutes)
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadgroup -m 'not slow'

check: .venv/extras  ## lint and check types
	ruff check .
	ruff format --check .
	mypy
	mypy --platform win32 lesions stages
	mypy --platform darwin lesions stages

report: setup  ## write all results of the last run on one page, dvc_plots/report.html
	lesions report

compare: setup  ## list all experiments: what changed, and the weighted F1 on validation
	@lesions compare

demo: .venv/extras  ## serve a page that predicts photos, on this computer only
	@echo 'starting torch ...'
	@lesions demo

pictures: .venv/extras  ## make the README's pictures of report and demo again, from the synthetic run
	python -m benchmarks.pictures

templates: setup  ## write the templates of the plots again, after a change of their module
	python -m lesions.reporting.plot_templates

verify: setup  ## run the pipeline in every way that DVC has, and compare all bytes
	python -m benchmarks.verify

seeds: setup  ## run the pipeline with three seeds: how much the seed and the test photos change the results
	python -m studies.seeds

course: setup  ## do all that docs/course says, and fill its pages in again (15 minutes on two cores)
	python -m studies.course

pitfalls: setup  ## measure what a split by photo reports too high, on the photos of data/ (a minute)
	dvc repro split
	python -m studies.pitfalls

shortcut: setup  ## plant a shortcut in synthetic photos, and see what the network learns (3 minutes)
	python -m studies.shortcut -S source=teaching -S image_size=64 -S holdout=any-lesion -S balance=none

bench: setup  ## measure the speed against its upper bounds (15 minutes on two cores)
	python -m benchmarks.throughput

gpu: setup  ## measure all that only a GPU can show, in nine minutes: make gpu PHOTOS=folder
	python -m benchmarks.gpu $(if $(PHOTOS),--photos "$(PHOTOS)")

ham10000: setup  ## run the pipeline on real photos: make ham10000 SOURCE=folder (or dataverse, kaggle)
	@test -n "$(SOURCE)" || { echo 'Name the photos: make ham10000 SOURCE=folder'; exit 2; }
	@lesions forecast "$$SOURCE"
	dvc exp run --set-param "source=\"$$SOURCE\""
	@dvc metrics show
