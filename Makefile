# Two commands do everything on a machine that has Python (3.10 or later) and make:
#   make demo   environment, install, prune SmolLM2's code neurons, write the page and say where
#   make test   environment, install, ruff, pyright, import-linter, pytest (minutes; `make test-long`: everything, in full)

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-long coverage lint docs bench assets notebooks clean

demo: $(VENV)/demo.installed
	$(BIN)/dissect demo

# In two processes of one thread each: threads of both would wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

# The same tests with whole notebooks, ten times as many random examples, every place to press Ctrl-C.
test-long: lint
	$(PYTEST) --long

# The same tests, and which branches of the package they take. Not those of Ray, whose own processes would be measured too.
coverage: $(VENV)/test.installed
	$(PYTEST) --cov --ignore tests/experiments/test_on_ray.py

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

# torch first and alone: pip then keeps the build it finds for this version.
$(VENV)/torch.installed: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	touch $@

$(VENV)/demo.installed: $(VENV)/torch.installed pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/test.installed: $(VENV)/torch.installed pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,notebook,ray,dev]'
	touch $@

$(VENV)/docs.installed: $(VENV)/torch.installed pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

# The pages as a site, docs/site/index.html; what the builder warns of is an error.
docs: $(VENV)/docs.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -f docs/mkdocs.yml

# Speed, as ratios to transformers' forward pass and to the machine's matrix product.
bench: $(VENV)/test.installed
	$(BIN)/python -m tests.benchmarks --out bench

# The README's pictures, from the demo's runs; needs a Chromium or Chrome.
assets: demo $(VENV)/test.installed
	$(BIN)/python assets/make.py runs/demo

# The notebooks' outputs, anew.
notebooks: $(VENV)/test.installed
	$(BIN)/python notebooks/make.py

clean:
	rm -rf $(VENV)
