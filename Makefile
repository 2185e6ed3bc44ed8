# Everything a developer needs, with only make and Python 3.11 or later on the machine.
# POSIX sh; nothing is installed outside this folder. `make` alone lists the targets.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
CODE := clockwork infra tests

# Checks and tests the alerts. An installed one: make check PROMTOOL=promtool
PROMTOOL ?= $(VENV)/tools/promtool

# A pooler in front of PostgreSQL: make pgbouncer. An installed one: make pgbouncer PGBOUNCER=pgbouncer
PGBOUNCER ?= $(VENV)/tools/pgbouncer

# The interpreter that makes the environment, e.g. `make setup PYTHON=/opt/python3.12/bin/python3`. Without it, the first
# of these that runs and is new enough: `python3` may be older than 3.11 while `python3.11` stands beside it. 3.11 comes
# first because constraints.txt is made with it.
PYTHON ?=
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python

# Processes that run the tests: one with the real services and one without keep two cores busy. 0: all in one process.
WORKERS ?= 2

# The start of make, in epoch seconds: "ready after" of make run counts the set-up, too.
BEGAN := $(shell date +%s)

# More arguments for the target: `make test ARGS="-k lanes"`.
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run demo test ui-test ui-types sim chaos fuzz bench check pgbouncer format format-check lint types imports rules tools charts examples audit sbom lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## the environment in .venv; done at once when it is up to date

run: $(STAMP) ## one node with a real Kafka and DynamoDB Local, STORE=postgresql or memory; Ctrl-C ends all of it
	@$(PY) -m infra.local.run --began $(BEGAN) $(if $(STORE),--store $(STORE)) $(ARGS)

demo: $(STAMP) ## against the running node: create schedules, consume them, show lateness and order
	@$(PY) -m infra.local.demo $(ARGS)

test: $(STAMP) ## every test but ui-test's; make test ARGS="-m 'not real'" for those without Kafka and DynamoDB
	@$(PY) -m pytest -n $(WORKERS) --ignore=tests/ui $(ARGS); code=$$?; \
	echo; echo "LEFT OUT: tests/ui, the dashboard in a browser. They need Debian's package chromium: make ui-test"; exit $$code

ui-test: $(STAMP) ## the dashboard in a browser (chromium, or the one that CLOCKWORK_CHROMIUM names); pictures in ui-results
	$(PY) -m pytest -n 0 tests/ui $(ARGS)

sim: $(STAMP) ## all mutations caught, and many histories: make sim SEEDS=1000; or make sim SEED=7 to replay one
	$(if $(SEED),,SIMULATION=full $(PY) -m pytest -n $(WORKERS) tests/simulation tests/unit/test_cron_brute.py tests/unit/test_zones.py tests/unit/test_calendars.py tests/unit/test_recurrence.py $(ARGS))
	$(PY) -m tests.simulation.run $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

chaos: $(STAMP) ## nodes as processes that are killed, stopped, misled: make chaos MINUTES=30 SEED=7 STORE=postgresql
	$(PY) -m tests.chaos.run --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED)) $(if $(STORE),--store $(STORE))

fuzz: $(STAMP) ## bad input from everywhere, in memory and on real services: make fuzz MINUTES=5 SEED=7 STORE=postgresql
	$(PY) -m tests.fuzz.run --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(if $(STORE),--store $(STORE))

bench: $(STAMP) ## speed beside a yardstick, on real services: make bench SCENARIO=drain QUICK=1 STORE=postgresql
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(PY) -m tests.benchmarks $(SCENARIO) $(if $(QUICK),--quick) $(if $(STORE),--store $(STORE)) $(ARGS)

check: $(STAMP) ## what CI runs: format, lint, types, import rules, alerts, every test; says where the time went
	@$(PY) -m infra.check $(MAKE)

pgbouncer: $(STAMP) ## the store's contracts on PostgreSQL behind PgBouncer in transaction mode, from Debian's package, without root
	@sh infra/tools/pgbouncer.sh "$(PGBOUNCER)" $(VENV)/tools
	CLOCKWORK_PGBOUNCER="$(PGBOUNCER)" $(PY) -m pytest -n 0 tests/contract -k pgbouncer $(ARGS)

format: $(STAMP) ## write the code in its one form
	$(VENV)/bin/ruff format $(CODE)
	$(VENV)/bin/ruff check --fix-only --select I $(CODE)

format-check: $(STAMP)
	$(VENV)/bin/ruff format --check $(CODE)

lint: $(STAMP) ## ruff, hadolint, and whether pyproject.toml names what is imported
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/hadolint infra/docker/Dockerfile
	$(VENV)/bin/deptry clockwork

types: $(STAMP) ## mypy, strict
	$(PY) -m mypy

ui-types: $(VENV)/tools/ui/node_modules/.package-lock.json ## the dashboard's modules by TypeScript, with the types that their JSDoc names
	@$(VENV)/tools/ui/node_modules/@typescript/*/lib/tsc --project infra/ui

$(VENV)/tools/ui/node_modules/.package-lock.json: infra/ui/package-lock.json | $(STAMP)
	@sh infra/tools/npm.sh $(PY) $(VENV)/tools

imports: $(STAMP) ## the layers: who may import whom
	$(VENV)/bin/lint-imports

rules: tools ## Prometheus' rules and their tests
	@$(PROMTOOL) check rules infra/prometheus/recording.yaml infra/prometheus/alerts.yaml
	@$(PROMTOOL) test rules infra/prometheus/alerts_test.yaml

tools: $(STAMP) ## promtool in .venv/tools, from Debian's package, without root
	@sh infra/tools/promtool.sh "$(PROMTOOL)" $(VENV)/tools

charts: $(STAMP) ## after a change of the chart: render it (needs helm 3 or Go), check against Kubernetes' schemas, store the result
	@$(call supply_tools); sh infra/helm/render.sh $(PY) $(VENV)/supply/bin/kubernetes-validate $(VENV)/tools

examples: $(STAMP) ## after a change of an answer: record the examples of the OpenAPI document anew
	$(PY) -m tests.unit.openapi_recording

audit: $(STAMP) ## known vulnerabilities of what constraints.txt pins; asks a service on the network
	@$(call supply_tools); $(VENV)/supply/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt
	$(PY) -m infra.ui.vendor --audit

sbom: $(STAMP) ## a CycloneDX list of what a node is made of, in dist/sbom.json
	@$(call supply_tools); mkdir -p dist; rm -rf $(VENV)/node; $(PY) -m venv --without-pip $(VENV)/node; \
	$(PY) -m pip --python $(VENV)/node/bin/python install --quiet --disable-pip-version-check --constraint constraints.txt .; \
	$(VENV)/supply/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.json \
	  $(VENV)/node/bin/python && $(PY) -m infra.ui.vendor --sbom dist/sbom.json && echo "sbom: dist/sbom.json"

lock: ## renew constraints.txt from pyproject.toml
	@$(find_python); \
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && trap 'exit 130' INT TERM && \
	"$$python" -m venv "$$dir/venv" && \
	"$$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[local,dev,bench]' && \
	{ sed -n '/^#/p' constraints.txt; \
	  "$$dir/venv/bin/python" -m pip freeze --disable-pip-version-check --exclude-editable; } > "$$dir/new" && \
	cp "$$dir/new" constraints.txt && echo "constraints.txt: $$(grep -c == constraints.txt) packages"

clean: ## remove the environment, the caches and the data of local services
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist ./*.egg-info
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last, so that a broken-off installation is taken up again. An environment whose interpreter is gone (or
# too old) is made anew; else only what changed is installed.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if ! $(PY) -c '$(new_enough)' >/dev/null 2>&1; then \
	  $(find_python); \
	  echo "setup: $$("$$python" --version) in $(VENV)"; \
	  rm -rf $(VENV); \
	  "$$python" -m venv $(VENV); \
	fi; \
	echo "setup: fetching packages into $(VENV), once; a minute or more"; \
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,dev]'; \
	touch $(STAMP)

# Apart from the environment of the tests: they bring more packages than the service itself has.
define supply_tools
set -e; if ! [ -e $(VENV)/supply/.installed ] || [ infra/supply/constraints.txt -nt $(VENV)/supply/.installed ]; then \
  $(PY) -m venv --clear $(VENV)/supply; \
  $(VENV)/supply/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint infra/supply/constraints.txt pip-audit cyclonedx-bom kubernetes-validate; \
  touch $(VENV)/supply/.installed; fi
endef

new_enough = import sys; sys.exit(sys.version_info < (3, 11))

# Sets $python, or ends with one line that says what is missing. A candidate is run, not only looked up: version managers
# leave names on the path that start nothing.
define find_python
python=; \
for name in $(or $(PYTHON),$(CANDIDATES)); do \
  if "$$name" -c '$(new_enough)' >/dev/null 2>&1; then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then \
  echo "setup: Python 3.11 or later is needed; tried: $(or $(PYTHON),$(CANDIDATES))." >&2; \
  echo "       Install it, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; \
fi; \
if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
  echo "setup: $$("$$python" --version) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
fi
endef
