# `make` lists what there is. Everything runs in .venv, which is made from the locks in requirements/.

PYTHON ?=
UP     ?= up -A examples.quickstart.tasks:app -Q celery,sum-queue --with "uvicorn examples.quickstart.api:app --port 8001"
BENCH  ?= -m benchmarks
ARGS   ?=
JOBS   ?= 2
PAGES  := DURE_CORS_ORIGINS=http://127.0.0.1:8001,http://localhost:8001

venv := .venv
bin  := $(venv)/bin
js   := clients/js

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SILENT:
.PHONY: help up chat media js test check format bench chaos celery-suite lock clean services

help: ## list the targets
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(venv)/.run ## set everything up and run Dure in front, with the quickstart's tasks
	exec $(bin)/dure $(UP)

chat: $(venv)/.examples ## run examples/chat in front, on http://127.0.0.1:8001
	exec env $(PAGES) $(bin)/dure up -A examples.chat.tasks:app -c 16 \
		--with "uvicorn examples.chat.api:app --port 8001" --with "uvicorn examples.chat.standin:app --port 8002"

media: $(venv)/.examples ## run examples/media in front, on http://127.0.0.1:8001
	scripts/services ffmpeg
	exec env $(PAGES) $(bin)/dure up -A examples.media.tasks:app --with "uvicorn examples.media.api:app --port 8001"

js: $(js)/dist/.built ## build the JavaScript client

test: $(venv)/.dev services js ## run every test, with real RabbitMQ, Redis and PostgreSQL (ARGS="-k name")
	exec $(bin)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(venv)/.dev services $(js)/node_modules/.made ## lint, format, types, import rules, the documentation's tests
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(npm) run --silent check
	$(bin)/python -m pytest tests/unit/test_imports.py tests/unit/test_project.py $(wildcard tests/docs)

format: $(venv)/.dev ## format the code and mend what the linter can
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

bench: $(venv)/.bench ## measure, with durable services
	scripts/services wrk
	exec $(bin)/python $(BENCH) $(ARGS)

chaos: $(venv)/.dev services ## try to lose a job: kills, cuts and full disks (ARGS="--fault worker-kill --system dure")
	command -v nft >/dev/null || scripts/services nftables
	exec $(bin)/python -m chaos --json build/chaos.json --markdown build/chaos.md $(ARGS)

celery-suite: $(venv)/.dev ## run Celery's own integration tests against our pool and stock ones (ARGS="--worker asyncio test_tasks.py")
	scripts/services rabbitmq redis
	exec $(bin)/python -m tests.celery_suite $(ARGS)

lock: $(venv)/.made ## remake requirements/*.txt and the JavaScript client's lock (ARGS=--upgrade for newer versions)
	scripts/lock $(ARGS)
	$(npm) install --package-lock-only --silent

clean: ## remove what was built, the environment too
	rm -rf $(venv) build dist $(js)/dist $(js)/node_modules .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

services:
	scripts/services rabbitmq redis postgres chromium ffmpeg

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

$(venv)/.examples: $(venv)/.run requirements/examples.txt
	echo "installing what the examples need into $(venv) ..." >&2
	$(install) --require-hashes -r requirements/examples.txt
	touch $@

$(venv)/.dev: $(venv)/.run requirements/dev.txt
	echo "installing the development tools into $(venv) ..." >&2
	$(install) --require-hashes -r requirements/dev.txt
	touch $@

$(venv)/.bench: $(venv)/.dev requirements/bench.txt
	echo "installing the workers that ours is measured against into $(venv) ..." >&2
	$(install) --require-hashes -r requirements/bench.txt
	touch $@

# Without npm the client is left out, as a server that is missing is: its tests say so, and fail with CI=true.
npm := scripts/services node npm; command -v npm >/dev/null || exit 0; npm --prefix $(js)

$(js)/node_modules/.made: $(js)/package-lock.json $(js)/package.json
	$(npm) ci --silent && touch $@

$(js)/dist/.built: $(js)/node_modules/.made $(js)/tsconfig.json $(wildcard $(js)/src/*.ts)
	$(npm) run --silent build && touch $@
