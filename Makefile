# Two commands do everything on a fresh machine (Debian or macOS, Python 3.11 or later): `make demo` and `make test`.

PYTHON ?= python3
DATA := $(abspath $(or $(FAIRBOARD_DATA_DIR),data))
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: help setup setup-dev demo up down test lint format docs lock clean bench-ingest chaos fuzz stress

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: setup ## play a game through the whole system and show what came out
	fairboard demo

up: export DAGSTER_HOME := $(DATA)/dagster
up: setup ## the whole system until Ctrl-C: API :8080, Dagster :3000, dashboard :8501
	@umask 077; mkdir -p $(DAGSTER_HOME) && cp dagster.yaml $(DAGSTER_HOME)/
	@umask 077; dagster instance info > /dev/null # makes Dagster's databases: the web server and the daemon at once would spoil them
	@echo "API http://127.0.0.1:8080   Dagster http://127.0.0.1:3000   dashboard http://127.0.0.1:8501   Ctrl-C stops all"
	@honcho start; status=$$?; [ $$status -eq 130 ] || exit $$status

down: ## stop what `make up` left, if it was killed
	@deploy/stop $(DATA)

test: setup-dev chromium servers java languages azurite ## every test
	pytest

SEED ?= $(shell date +%s)
fuzz: setup-dev ## 100,000 connections of generated requests, and as many bodies, against the ingest service, counted by their answers (SEED=… again)
	FAIRBOARD_TEST_FUZZ=100000 FAIRBOARD_TEST_SEED=$(SEED) pytest -n 0 --timeout 0 -s tests/test_ingest_connections.py
	FAIRBOARD_TEST_FUZZ=100000 pytest -n 0 --timeout 0 -s tests/test_ingest_attacks.py -k no_body_and_no_header

bench-ingest: setup-dev ## the ingest service beside the Go gateway, FastAPI and the machine, and under attack (needs wrk, redis-server, Go)
	python benchmarks/ingest_bench.py
	python benchmarks/attack_bench.py

chaos: setup-dev ## kill -9 under load, a hundred times
	python benchmarks/chaos_ingest.py --kills 100

STRESS_SECONDS ?= 120
stress: setup-dev ## writers and readers of one lake at once (STRESS_SECONDS=120): no read fails or mixes, and the end is as computed afresh
	python benchmarks/stress_lake.py --seconds $(STRESS_SECONDS)

lint: setup-dev ## ruff, mypy strict, the rooms' import contracts
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: setup-dev ## write the code as ruff wants it
	ruff check --fix .
	ruff format .

setup: .venv/run redis-server ## the environment that running needs

setup-dev: .venv/dev redis-server ## and the one that tests need

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Fairboard needs Python 3.11 or later; set PYTHON=python3.x" >&2; exit 1; }
	@deploy/system-package "Python's venv (a package of its own on Debian)" python3-venv "brew install python" $(PYTHON) -c 'import ensurepip'
	$(PYTHON) -m venv .venv

# The locks are complete and hashed: pip has nothing to resolve.
.venv/run: requirements.lock pyproject.toml | .venv/bin/python
	pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: requirements-dev.lock .venv/run
	pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

# System packages: installed on Debian as root or with sudo, else named.
.PHONY: redis-server chromium languages
redis-server: .venv/run
	@deploy/system-package "Redis" redis-server "brew install redis" python -c 'from warehouse.embedded_redis import find_server; find_server()'

chromium: .venv/dev
	@deploy/system-package "Chromium (for the browser tests)" chromium "brew install --cask chromium" sh -c "command -v chromium || command -v chromium-browser || command -v google-chrome"

languages: # their tests skip where these are missing
	-@deploy/system-package "Node.js (for its example client)" nodejs "brew install node" command -v node
	-@deploy/system-package "Go (for its example client)" golang-go "brew install go" command -v go
	-@deploy/system-package "A JDK (for its example client)" openjdk-17-jdk-headless "brew install openjdk@17" command -v javac
	-@deploy/system-package "Mono (for the example client in C#)" "mono-mcs libmono-system-net-http4.0-cil" "brew install mono" command -v mcs
	-@deploy/system-package "A C compiler (for a disk that fails)" gcc "xcode-select --install" command -v cc

docs: setup-dev ## write what follows from the code (.env.example)
	python -m docs.generate

lock: .venv/dev ## resolve the dependencies anew
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --upgrade pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --upgrade --extra dev pyproject.toml -o requirements-dev.lock

clean: down ## remove ./data (its events too!), caches and the environment
	rm -rf data .venv .peers .azurite .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build

.PHONY: bench-warehouse bench-bucket bench-leaderboards bench-freshness bench-size
PEERS ?= .peers
bench-warehouse: setup-dev $(PEERS)/bin/dbt ## the warehouse beside DuckDB by hand, pandas, Spark and dbt, in an environment made for them (needs Java)
	python benchmarks/warehouse_bench.py --peers $(PEERS)

$(PEERS)/bin/dbt: benchmarks/peers.txt | .venv/dev
	$(PYTHON) -m venv $(PEERS)
	uv pip install --quiet --python $(PEERS)/bin/python -r benchmarks/peers.txt
	@touch $@

bench-bucket: setup-dev ## a day's graph with the lake in a bucket (moto's), with and without copies on this machine, beside a folder
	python benchmarks/bucket_bench.py

bench-leaderboards: setup-dev ## boards into Redis and the read API beside raw Redis, and what readers see (needs redis-cli, wrk)
	python benchmarks/leaderboards_bench.py
	python benchmarks/reads_bench.py

bench-freshness: setup-dev ## from a 202 to the score in Redis, with everything running
	python benchmarks/freshness_bench.py

bench-size: setup-dev ## how small events are on disk, and what reading and writing them costs
	python benchmarks/warehouse_size.py

.PHONY: servers
servers: .venv/dev # of the tests that need a real one
	@deploy/system-package "Redis 7 (for tests of a cluster)" redis-server "brew install redis" sh -c "ls /usr/bin/redis-server /usr/local/bin/redis-server /opt/homebrew/bin/redis-server 2>/dev/null | grep -q ."
	@deploy/system-package "PostgreSQL (for tests of the production database)" postgresql "brew install postgresql" sh -c "command -v initdb || ls /usr/lib/postgresql/*/bin/initdb"

.PHONY: azurite
azurite: ## Azurite, an Azure Blob of this machine, for the tests of buckets, which skip where it is missing
	-@deploy/system-package "npm (for Azurite)" npm "brew install node" command -v npm
	-@[ -x .azurite/node_modules/.bin/azurite-blob ] || npm install --silent --no-audit --no-fund --ignore-scripts --prefix .azurite azurite@3.37.0

.PHONY: java
java: ## Java, for the tests of Spark, which skip where it is missing
	-@deploy/system-package "Java 17 (for Spark)" openjdk-17-jre-headless "brew install openjdk@17" java -version

.PHONY: bench-growth
bench-growth: setup-dev ## how much larger the lake is on disk than what is live in it, after an hour of boards that follow the events
	python benchmarks/lake_growth.py

.PHONY: bench-fairness
bench-fairness: setup-dev ## the fairness rules on planted cheaters, beside the original rule, PyOD and plain SQL
	python benchmarks/fairness_bench.py --pyod
	python benchmarks/fairness_bench.py --speed
