# All that is needed is installed on the way, by `deploy/install`; nothing to prepare.
# Another Python than the first found: make PYTHON=/path/to/python3.12 ...

BIN := .venv/bin
SEEDS ?= 1..300

.PHONY: help install demo test check unit simulate chaos bench-ledger bench-book bench-pipeline bench-engine bench-gateway test-clients pins clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## .venv with the project and all that it needs (the first time, minutes: it compiles)
	@deploy/install/start.sh

demo: install ## a herd on this machine, ready to be paid
	@$(BIN)/herd demo

test: install ## the checks, then all tests
	@.ci/steps test

test-clients: install ## OpenAI's released packages, Python and npm, against a real gateway: time-outs, lost gateways and workers
	@.ci/steps clients

check: install ## ruff, mypy, and who may import whom
	@.ci/steps check

unit: install ## the quick tests
	@.ci/steps unit

simulate: install ## a herd under a simulated clock, broker and workers, and all that can go wrong (SEEDS=1..300); then the models of ledger and book, for long
	@$(BIN)/python -m tests.simulation $(SEEDS)
	@TESTS_THOROUGH=1 $(BIN)/python -m pytest -n 2 -q tests/unit/ledger/test_ledger_model.py tests/unit/orders/test_intake_model.py

chaos: install ## real processes that die, and brokers, Redis and databases that go away, for many rounds
	@CHAOS_BROKER_ROUNDS=20 CHAOS_ROUNDS=10 $(BIN)/python -m pytest -n 0 -v -m chaos tests/chaos

bench-ledger: install ## transfers per second
	@$(BIN)/python tests/bench/ledger.py

bench-book: install ## what the desk does with a thousand to a million orders waiting, on both databases
	@$(BIN)/python tests/bench/book.py

bench-pipeline: install ## orders per second, from submission to receipt
	@$(BIN)/python tests/bench/pipeline.py

bench-engine: install ## tokens per second, beside llama.cpp's own server (the first time it compiles that)
	@$(BIN)/python tests/bench/engine.py

bench-gateway: install ## requests per second over HTTP, beside bare routes on the same database
	@$(BIN)/python tests/bench/gateway.py

pins: install ## write constraints.txt anew, for each Python found (UPGRADE=1: the newest of everything)
	@$(BIN)/python -m deploy.install.pins $(if $(UPGRADE),--upgrade)

clean: ## remove what was made in this folder; wheels that were compiled stay, in ~/.cache
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -prune -exec rm -rf {} +
