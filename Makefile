# Two commands do everything on a machine that has Python (3.10 or later) and make:
#   make demo   environment, install, prune SmolLM2's code neurons, write the page and say where
#   make test   environment, install, ruff, pyright, pytest

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint bench assets clean

demo: $(VENV)/demo.installed
	$(BIN)/dissect demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# torch first and alone: pip then keeps the build it finds for this version.
$(VENV)/torch.installed: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	touch $@

$(VENV)/demo.installed: $(VENV)/torch.installed pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/test.installed: $(VENV)/torch.installed pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,dev]'
	touch $@

# Speed, as ratios to transformers' forward pass and to the machine's matrix product.
bench: $(VENV)/test.installed
	$(BIN)/python -m tests.benchmarks --out bench

# The README's picture, from the demo's runs; needs a Chromium or Chrome for kaleido.
assets: demo $(VENV)/test.installed
	$(BIN)/python -c "from dissect import Run; \
	Run.load('runs/demo/score').figure(Run.load('runs/demo/random')).write_image('assets/dashboard.png', width=1280, height=580)"

clean:
	rm -rf $(VENV)
