# `make demo` and `make test` do all set-up themselves; they need Python 3.11+, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STORE ?= autophagy-store
DEMO_WORKERS ?= $(shell [ $$(nproc 2>/dev/null || echo 1) -ge 2 ] && echo 2 || echo 1)

.PHONY: demo test test-all check audit ui fashion submit clean

# Generation 0 takes two Ray Train workers; the short fine-tunings after it would spend their time on starting some.
demo: $(READY)  ## three loops on 8x8 digits, compared in one picture
	$(BIN)/autophagy run lsf_digits --name generation_0 --store $(STORE) \
		--set generations=0 --set training.num_workers=$(DEMO_WORKERS)
	$(BIN)/autophagy sweep demo --store $(STORE)

# Two processes, each with a Ray of its own: most tests wait for one.
test: $(READY)  ## the default tests: CPU, no network, minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY)  ## the slow tests too
	$(BIN)/python -m pytest -m "not gpu and not cluster"

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Skipped, with a line that says so, where nobody can be asked; with AUDIT_REQUIRED=1 that is an error.
audit: $(READY)  ## known vulnerabilities of the versions in constraints.txt
	$(BIN)/python .ci/audit.py

fashion: $(READY)  ## the Fashion-MNIST comparison of docs/results over three seeds: hours on two cores
	$(BIN)/autophagy sweep fashion_small --store $(STORE)

ui: $(READY)  ## MLflow over everything in the store
	$(BIN)/mlflow ui --backend-store-uri sqlite:///$(abspath $(STORE))/mlflow.db

# The package travels with the job; the cluster's image has the rest. Without STORE, the one of the cluster. What is
# given reaches the job through the environment, as it was typed: neither make nor a shell runs what stands in it.
ADDRESS ?= http://127.0.0.1:8265
unexport RECIPE ARGS JOB STORE ADDRESS
submit: export SUBMIT_RECIPE = $(value RECIPE)
submit: export SUBMIT_ARGS = $(value ARGS)
submit: export SUBMIT_JOB = $(value JOB)
submit: export SUBMIT_STORE = $(if $(filter-out file,$(origin STORE)),$(value STORE))
submit: export SUBMIT_ADDRESS = $(value ADDRESS)
submit: $(READY)  ## RECIPE=demo [STORE=s3://...] [ARGS="--set ..."] [ADDRESS=http://...]: a sweep on a cluster
	@PYTHONPATH=platform $(BIN)/python deploy/submit.py $(BIN)/ray

# torch first and by itself: where a CPU build is at hand, pip takes that one.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch $(TORCH_INDEX)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV)
