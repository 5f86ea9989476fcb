# Two commands for a fresh machine: `make demo` and `make test`.
# CI pins every package: CONSTRAINT=requirements/lock.txt make test

PYTHON ?= python3
VENV ?= .venv
CONSTRAINT ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINT),--constraint $(CONSTRAINT))

# These run the recorder and the driver, which need no package but click and nvidia-ml-py; their
# real children, terminals and clocks take half the time of all tests.
NO_PACKAGES := test_torture_* test_record_* test_nvml_f* test_nvml_source* test_nvml_parts* test_report_browser*

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest check format picture bench score score-kinds score-short fit lock clean

help: ## List these commands.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml vramtop/stats/_fpop.c $(CONSTRAINT)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[test,check]'
	touch $@

demo: $(STAMP) ## Record a simulated run that ends in an OOM, print its events, write its report.
	mkdir -p demo
	rm -f demo/training-oom.parquet*
	$(BIN)/vramtop record --source sim:training-oom --seed 1 --pace 60 -o demo/training-oom.parquet
	$(BIN)/vramtop replay demo/training-oom.parquet --events
	$(BIN)/vramtop report demo/training-oom.parquet -o demo/training-oom.html

test: $(STAMP) ## Run all tests.
	$(BIN)/python -m pytest -q

test-lowest: ## Run the tests with the oldest packages that pyproject.toml admits.
	test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint requirements/lowest.txt --editable '.[test]'
	$(VENV)-lowest/bin/python -m pytest -q -p no:randomly $(addprefix --ignore-glob=tests/,$(NO_PACKAGES))

check: $(STAMP) ## Lint, formatting, types, layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format and mend what can be mended.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

picture: $(STAMP) ## Draw the README's picture again.
	$(BIN)/vramtop report recordings/sim-training-oom.parquet -o docs/images/training-oom.png

bench: $(STAMP) ## Print every figure that benchmarks/README.md promises.
	$(BIN)/python benchmarks/run.py

score: $(STAMP) ## Score forecasts, verdicts, segments and labels on simulated runs; 5 minutes.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/score.py --fresh
	$(BIN)/python benchmarks/segments.py --seeds 2 --first-seed 60

score-kinds: $(STAMP) ## Score each kind of run under a fit on all other kinds; 20 minutes.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fit_risk.py --held-out

score-short: $(STAMP) ## The same on a fifth of the runs; fails below the floors.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/score.py --short
	$(BIN)/python benchmarks/segments.py --short

fit: $(STAMP) ## Fit the tables of the risk model again; 10 minutes.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fit_risk.py

lock: $(STAMP) ## Pin what is installed now, for CI.
	{ echo "\# What CI installs; made by make lock."; $(BIN)/python -m pip freeze --exclude-editable; } > requirements/lock.txt

clean: ## Remove what the other commands made.
	rm -rf $(VENV) $(VENV)-lowest demo build dist *.egg-info
