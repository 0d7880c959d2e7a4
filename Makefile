# install demo test test-all lint: see README.md. PIP_EXTRA_INDEX_URL and the other PIP_ variables reach pip as they are.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := lemof_model protocol readers client server simulation
PLAN := site_configs/plans/quick.yaml

include .ci/environment
export $(shell sed 's/=.*//' .ci/environment)

.PHONY: install demo test test-all lint

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python must be 3.11 or newer, got %d.%d. Run: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -r requirements.lock
	$(BIN)/pip install --no-deps --no-build-isolation -e .
	@touch $@

demo: install
	@echo "Demo: four generated hospitals of 400 ICU stays. None of these patients is real: numbers say that the machinery"
	@echo "works, and nothing about medicine. What no model can do better stands below (truth.json); so few stays decide no"
	@echo "order between models."
	rm -rf demo
	$(BIN)/lemof-sim synth demo/hospitals --sites 4 --stays 400 --seed 7
	set -e; for site in demo/hospitals/*/site.yaml; do $(BIN)/lemof-client prepare --site "$$site" --plan $(PLAN); done
	$(BIN)/lemof-sim run --sites demo/hospitals/*/site.yaml --plan $(PLAN) --out demo/run
	@echo "Open the report: $(CURDIR)/demo/run/report.html"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES) tests benchmarks
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -m "not slow"

test-all: lint
	$(BIN)/pytest --cov
