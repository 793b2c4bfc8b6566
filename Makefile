# Every check that CI runs, one target each. `make help` lists them.
VENV ?= .venv
RUN = $(VENV)/bin
FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help bench demo fuzz test wheels lint types layers schema clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.ready: pyproject.toml uv.lock
	sh scripts/bootstrap.sh $(VENV)
	touch $@

demo: $(VENV)/.ready ## Show the way of a few commands, with real processes
	$(RUN)/python -m scripts.demo

test: $(VENV)/.ready ## Run all tests
	$(RUN)/python -m pytest -n 2 --dist loadscope

lint: $(VENV)/.ready ## Check style and format
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(VENV)/.ready ## Check the types
	$(RUN)/mypy

layers: $(VENV)/.ready ## Check the layers
	$(RUN)/lint-imports

fuzz: $(VENV)/.ready ## Feed hostile bytes to all that reads them, for FUZZ_SECONDS (600) in all
	UV_PROJECT_ENVIRONMENT=$(VENV) $(RUN)/uv sync --frozen --inexact --quiet --group fuzz
	$(RUN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

bench: $(VENV)/.ready ## Measure against peers in the same run
	$(RUN)/python -m benchmarks

wheels: $(VENV)/.ready ## Fill build/wheels for the images in docker/
	bash scripts/wheels.sh $(VENV)

schema: $(VENV)/.ready ## Write the JSON Schema of the messages into docs/
	$(RUN)/python -m broker.contract.schema docs/schema.json

clean: ## Remove the virtual environment
	rm -rf $(VENV)
