# Every check that CI runs, one target each. `make help` lists them.
VENV ?= .venv
PREFIX ?= /opt/acm
RUN = $(VENV)/bin
# Tests that start programs wait most of the time, so two cores have room for three workers. In the order of the
# folders, these slow tests run first, and the workers end at about the same time.
PYTEST = $(RUN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder
FUZZ_SECONDS ?= 600
POOLED ?= tests/acceptance tests/unit/broker/ledger
# Of the ledger, these use what the others use: what they test is at the agent.
AT_AGENTS = active_response agent_status example_package replacement service_commands upgrade
MQTT ?= tests/integration/test_mqtt.py tests/integration/test_withheld_packets.py tests/integration/test_tls.py \
	tests/integration/test_connection_failures.py tests/integration/test_connection_problems.py \
	tests/acceptance/test_life_of_a_command.py tests/acceptance/test_secured_broker.py
FAULT_SECONDS ?= 1080
SCALE ?= 1

.DEFAULT_GOAL := help
.PHONY: help bench bench-server bench-ledger bench-page postgresql pgbouncer untestedpaho coverage demo faults fuzz test mutations vulnerabilities sbom install wheels lint types layers schema errors clean plots screenshots

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.ready: pyproject.toml uv.lock scripts/uv.txt
	sh scripts/bootstrap.sh $(VENV)
	touch $@

demo: $(VENV)/.ready ## Show a few commands end to end, with real processes; KEEP=1 keeps them up until Ctrl-C
	$(RUN)/python -m scripts.demo $(if $(KEEP),--keep)

test: $(VENV)/.ready ## Run all tests
	bash scripts/postgresql.sh
	bash scripts/prometheus.sh
	bash scripts/shells.sh
	bash scripts/chromium.sh
	$(PYTEST)

postgresql: $(VENV)/.ready ## Run the acceptance tests with the ledger in PostgreSQL (not in CI: pgbouncer has them)
	bash scripts/postgresql.sh
	ACM_TEST_LEDGER=postgresql $(PYTEST) -k "not sqlite" -m "not own_ledger" tests/acceptance

pgbouncer: $(VENV)/.ready ## Run POOLED tests (acceptance, the ledger's) with the ledger in PostgreSQL behind PgBouncer
	bash scripts/postgresql.sh
	ACM_TEST_LEDGER=pgbouncer $(PYTEST) -k "not sqlite" -m "not own_ledger" \
		$(AT_AGENTS:%=--ignore=tests/acceptance/test_%.py) $(POOLED)

untestedpaho: $(VENV)/.ready ## Run MQTT tests as with a version of paho that was not tested: packets one by one
	sh scripts/untested_paho.sh $(VENV) build/paho
	PYTHONPATH=$(CURDIR)/build/paho $(PYTEST) $(MQTT)

coverage: $(VENV)/.ready ## Run all tests; print the lines that they do not cover
	$(PYTEST) --cov --cov-report=term

mutations: $(VENV)/.ready ## Remove each security control; a test must fail
	$(RUN)/python -m tests.security.mutate

vulnerabilities: $(VENV)/.ready ## Look the locked packages up in OSV (needs the network)
	$(RUN)/python -m scripts.vulnerabilities

sbom: $(VENV)/.ready ## Write build/sbom.cdx.json, the bill of materials
	$(RUN)/python -m scripts.sbom

lint: $(VENV)/.ready ## Check style and format
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(VENV)/.ready ## Check the types
	$(RUN)/mypy

layers: $(VENV)/.ready ## Check the layers
	$(RUN)/lint-imports

fuzz: $(VENV)/.ready ## Fuzz the parsers of untrusted input, for FUZZ_SECONDS (600) in total
	UV_PROJECT_ENVIRONMENT=$(VENV) $(RUN)/uv sync --frozen --inexact --quiet --group fuzz
	$(RUN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

faults: $(VENV)/.ready ## Kill, starve and fail the programs, for FAULT_SECONDS (1080) in total
	$(RUN)/python -m tests.faults --seconds $(FAULT_SECONDS)

bench: $(VENV)/.ready ## Measure the agent beside simpler consumers; ROWS=latency SCALE=0.1 for a quick look
	$(RUN)/python -m benchmarks.agent $(if $(ROWS),--rows $(ROWS)) --scale $(SCALE)

bench-server: $(VENV)/.ready ## Measure the server with a simulated fleet; ROWS=1000x20 SCALE=0.1 for a quick look
	$(RUN)/python -m benchmarks.server $(if $(ROWS),--rows $(ROWS)) --scale $(SCALE)

bench-ledger: $(VENV)/.ready ## Measure ledgers of 10,000 to 10,000,000 finished commands; SIZES=10000,100000 for others
	$(RUN)/python -m benchmarks.ledger $(if $(ROWS),--rows $(ROWS)) $(if $(SIZES),--sizes $(SIZES))

bench-page: $(VENV)/.ready ## Measure how soon the page shows something with 10,000 agents; ROWS=sqlite for one database
	bash scripts/chromium.sh
	bash scripts/postgresql.sh
	$(RUN)/python -m benchmarks.page $(if $(ROWS),--rows $(ROWS))

plots: $(VENV)/.ready ## Draw docs/plots from the results of the benchmarks in build/
	UV_PROJECT_ENVIRONMENT=$(VENV) $(RUN)/uv sync --frozen --inexact --quiet --group plots
	$(RUN)/python -m benchmarks.plots

screenshots: $(VENV)/.ready ## Take docs/screenshots of the page, in both themes and widths
	bash scripts/chromium.sh
	UV_PROJECT_ENVIRONMENT=$(VENV) $(RUN)/uv sync --frozen --inexact --quiet --group screenshots
	$(RUN)/python -m scripts.screenshots

install: $(VENV)/.ready ## Install into PREFIX (/opt/acm), a virtual environment; EXTRA="api postgresql" for more parts
	sh scripts/install.sh $(VENV) "$(PREFIX)" "$(EXTRA)"

wheels: $(VENV)/.ready ## Fill build/wheels for the images in docker/
	bash scripts/wheels.sh $(VENV)

schema: $(VENV)/.ready ## Write the JSON Schemas of the messages and of the output with --json into docs/
	$(RUN)/python -m scripts.schema docs/schema.json
	$(RUN)/python -m scripts.output_schema docs/output-schema.json

errors: $(VENV)/.ready ## Write the table of error codes into docs/
	$(RUN)/python -m scripts.errors

clean: ## Remove the virtual environment
	rm -rf $(VENV)
