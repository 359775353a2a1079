# `make` lists what there is. Everything runs in .venv, which is made from the locks in requirements/.

PYTHON ?=
UP     ?= up -A examples.quickstart.tasks:app -Q celery,sum-queue --with "uvicorn examples.quickstart.api:app --port 8001"
BENCH  ?= -m benchmarks
ARGS   ?=
JOBS   ?= 2

venv := .venv
bin  := $(venv)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SILENT:
.PHONY: help up test check format bench chaos lock clean services

help: ## list the targets
	awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(venv)/.run ## set everything up and run Dure in front, with the quickstart's tasks
	exec $(bin)/dure $(UP)

test: $(venv)/.dev services ## run every test, with real RabbitMQ, Redis and PostgreSQL (ARGS="-k name")
	exec $(bin)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(venv)/.dev services ## lint, format, types, import rules, the documentation's tests
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/python -m pytest tests/unit/test_imports.py tests/unit/test_project.py $(wildcard tests/docs)

format: $(venv)/.dev ## format the code and mend what the linter can
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

bench: $(venv)/.dev ## measure, with durable services
	scripts/services wrk
	exec $(bin)/python $(BENCH) $(ARGS)

chaos: $(venv)/.dev services ## try to lose a job: kills, cuts and full disks (ARGS="--fault worker-kill --system dure")
	command -v nft >/dev/null || scripts/services nftables
	exec $(bin)/python -m chaos --json build/chaos.json --markdown build/chaos.md $(ARGS)

lock: $(venv)/.made ## remake requirements/*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	scripts/lock $(ARGS)

clean: ## remove what was built, the environment too
	rm -rf $(venv) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

services:
	scripts/services rabbitmq redis postgres

# Stamps: nothing is looked at again until a lock or pyproject.toml is newer.
install := $(bin)/python -m pip install --quiet --no-input --disable-pip-version-check

$(venv)/.made:
	scripts/venv $(venv) $(PYTHON)
	touch $@

$(venv)/.run: $(venv)/.made requirements/base.txt requirements/build.txt pyproject.toml
	echo "installing Dure into $(venv) ..." >&2
	$(install) --require-hashes -r requirements/base.txt -r requirements/build.txt
	$(install) --no-deps --no-build-isolation --editable .
	touch $@

$(venv)/.dev: $(venv)/.run requirements/dev.txt
	echo "installing the development tools into $(venv) ..." >&2
	$(install) --require-hashes -r requirements/dev.txt
	touch $@
