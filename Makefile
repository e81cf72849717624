# The README's two commands are `make demo` and `make test`; each makes the virtual environment that it needs.

PYTHON ?= python3
RUN_ENV := .venv-run
DEV_ENV := .venv

.PHONY: demo test lint bench demo-detector clean

demo: $(RUN_ENV)/ready  ## score the example images with the demo detector, on the CPU, without torch
	$(RUN_ENV)/bin/spai-run examples --format table

test: $(DEV_ENV)/ready  ## every test that needs no GPU
	$(DEV_ENV)/bin/python -m pytest

lint: $(DEV_ENV)/ready  ## style and types
	$(DEV_ENV)/bin/ruff check .
	$(DEV_ENV)/bin/ruff format --check .
	$(DEV_ENV)/bin/mypy

bench: $(DEV_ENV)/ready  ## ratios within one run; prints a line of JSON each
	$(DEV_ENV)/bin/python -m pytest benchmarks -q -s

demo-detector: $(DEV_ENV)/ready  ## train the demo detector from its seed and export it to weights/demo
	$(DEV_ENV)/bin/spai-train demo --output runs/demo
	$(DEV_ENV)/bin/spai-export --ckpt runs/demo/demo.safetensors --output weights/demo
	cp runs/demo/report.json runs/demo/report.md weights/demo/
	cp runs/demo/samples/* examples/

clean:
	rm -rf $(RUN_ENV) $(DEV_ENV)

$(RUN_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(RUN_ENV)
	$(RUN_ENV)/bin/pip install --quiet --editable '.[cpu]'
	touch $@

$(DEV_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEV_ENV)
	$(DEV_ENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@
