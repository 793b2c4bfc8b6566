# Every check that CI runs, one target each. `make help` lists them.
VENV ?= .venv
PREFIX ?= /opt/acm
RUN = $(VENV)/bin
# Tests that start programs wait most of the time, so two cores have room for three workers. In the order of the
# folders, these slow tests run first, and the workers end at about the same time.
PYTEST = $(RUN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder
FUZZ_SECONDS ?= 600
POOLED ?= tests/unit/broker/ledger tests/acceptance/test_life_of_a_command.py
FAULT_SECONDS ?= 1080

.DEFAULT_GOAL := help
.PHONY: help bench postgresql pgbouncer coverage demo faults fuzz test mutations vulnerabilities sbom install wheels lint types layers schema errors clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.ready: pyproject.toml uv.lock scripts/uv.txt
	sh scripts/bootstrap.sh $(VENV)
	touch $@

demo: $(VENV)/.ready ## Show a few commands end to end, with real processes
	$(RUN)/python -m scripts.demo

test: $(VENV)/.ready ## Run all tests
	bash scripts/postgresql.sh
	$(PYTEST)

postgresql: $(VENV)/.ready ## Run the acceptance tests with the ledger in PostgreSQL
	bash scripts/postgresql.sh
	ACM_TEST_LEDGER=postgresql $(PYTEST) tests/acceptance

pgbouncer: $(VENV)/.ready ## Run POOLED tests (the ledger's, the life of a command) with PostgreSQL behind PgBouncer
	bash scripts/postgresql.sh
	ACM_TEST_LEDGER=pgbouncer $(PYTEST) $(POOLED)

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

bench: $(VENV)/.ready ## Measure against simpler consumers in the same run
	$(RUN)/python -m benchmarks

install: $(VENV)/.ready ## Install into PREFIX (/opt/acm), a virtual environment; EXTRA=postgresql adds its driver
	sh scripts/install.sh $(VENV) $(PREFIX) $(EXTRA)

wheels: $(VENV)/.ready ## Fill build/wheels for the images in docker/
	bash scripts/wheels.sh $(VENV)

schema: $(VENV)/.ready ## Write the JSON Schema of the messages into docs/
	$(RUN)/python -m scripts.schema docs/schema.json

errors: $(VENV)/.ready ## Write the table of error codes into docs/
	$(RUN)/python -m scripts.errors

clean: ## Remove the virtual environment
	rm -rf $(VENV)
