# The README's two commands are `make demo` and `make test`; each makes the virtual environment that it needs.

PYTHON ?= python3
RUN_ENV := .venv-run
DEV_ENV := .venv
GPU_ENV := .venv-gpu
BIN := $(DEV_ENV)/bin
DEMO := runs/demo
IN_PARALLEL := -n auto --maxprocesses 8 --dist loadfile  # a process takes up to 2 GB, and makes what a file shares once
BINDINGS := $(DEV_ENV)/bindings

.PHONY: demo test bindings lint docs bench bench-cpu bench-gpu demo-detector clean

demo: $(RUN_ENV)/ready  ## score the example images with the demo detector, on the CPU, without torch
	$(RUN_ENV)/bin/spai-run examples --format table

test: $(DEV_ENV)/ready bindings  ## every test that needs no GPU
	$(DEV_ENV)/bin/python -m pytest $(IN_PARALLEL)

lint: $(DEV_ENV)/ready  ## style and types
	$(DEV_ENV)/bin/ruff check .
	$(DEV_ENV)/bin/ruff format --check .
	$(DEV_ENV)/bin/mypy

docs: $(DEV_ENV)/ready  ## docs/recipes.md, from the code
	$(DEV_ENV)/bin/python -m spai_train.reference docs/recipes.md

bench: $(DEV_ENV)/ready  ## ratios within one run; prints a line of JSON each
	$(DEV_ENV)/bin/python -m pytest benchmarks -q -s

bench-cpu: $(DEV_ENV)/ready  ## every engine and precision on this CPU; fails where one falls short; writes benchmarks/results/cpu-<processor>.json
	$(BIN)/python benchmarks/cpu benchmarks/results

bench-gpu: $(GPU_ENV)/ready  ## every back end on this machine's GPU; writes benchmarks/results/gpu-<device>.json
	$(GPU_ENV)/bin/python benchmarks/gpu/offline run all --output runs/gpu --results benchmarks/results

demo-detector: $(DEV_ENV)/ready  ## simulate, train, export, calibrate and measure the demo detector, from its seed
	$(BIN)/spai-train simulate $(DEMO)/data
	$(BIN)/spai-train fit --recipe demo --data $(DEMO)/data/images.csv --output $(DEMO)/fit
	$(BIN)/spai-export --ckpt $(DEMO)/fit/best.safetensors --licence Apache-2.0 --output weights/demo
	$(BIN)/spai-train evaluate $(DEMO)/data/images.csv --split calibration --engine weights/demo --calibrate fpr=0.05 \
		--output $(DEMO)/calibration
	for form in png jpeg; do \
		$(BIN)/spai-train evaluate $(DEMO)/data/$$form.csv --engine weights/demo --output $(DEMO)/$$form && \
		$(BIN)/spai-train evaluate $(DEMO)/data/$$form.csv --split held_out --engine weights/demo \
			--output $(DEMO)/held-out-$$form && \
		$(BIN)/spai-train baselines $(DEMO)/data/$$form.csv --train $(DEMO)/data/images.csv --output $(DEMO)/$$form && \
		mkdir -p weights/report/$$form weights/report/held-out-$$form && \
		cp $(DEMO)/$$form/metrics.json $(DEMO)/$$form/baselines.json weights/report/$$form && \
		cp $(DEMO)/held-out-$$form/metrics.json weights/report/held-out-$$form || exit 1; \
	done
	cp $(DEMO)/fit/metrics.jsonl $(DEMO)/fit/curves.png weights/report
	cp $(DEMO)/data/examples/* examples/

clean:
	rm -rf $(RUN_ENV) $(DEV_ENV) $(GPU_ENV)

$(RUN_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(RUN_ENV)
	$(RUN_ENV)/bin/pip install --quiet --editable '.[cpu]'
	touch $@

$(DEV_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEV_ENV)
	$(DEV_ENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@

bindings: $(BINDINGS)/10.12/ready $(BINDINGS)/11.4/ready $(BINDINGS)/cupy/ready  ## what the code calls of TensorRT and CuPy is tested against these

# TensorRT's bindings without its libraries, for the oldest and the latest release, and CuPy, none of them where the tests
# would import it by themselves. Where they cannot be had, tests say so.
$(BINDINGS)/10.12/ready: PACKAGE := tensorrt-cu12-bindings==10.12.0.36
$(BINDINGS)/11.4/ready: PACKAGE := tensorrt-cu13-bindings==11.4.0.106
$(BINDINGS)/cupy/ready: PACKAGE := cupy-cuda13x==14.2.0
$(BINDINGS)/%/ready: | $(DEV_ENV)/ready
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
		$(BIN)/pip install --quiet --no-deps --only-binary :all: --upgrade --target $(@D) $(PACKAGE) && touch $@ || \
		echo "$(PACKAGE) could not be installed"; \
	fi

# ONNX Runtime for the CPU and for CUDA lie in one folder, so the one that `dev` brings has to go.
$(GPU_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(GPU_ENV)
	$(GPU_ENV)/bin/pip install --quiet --editable '.[dev,gpu,quantize]'
	-$(GPU_ENV)/bin/pip install --quiet --editable '.[trt]'  # where it cannot be had, its rows say so
	$(GPU_ENV)/bin/pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(GPU_ENV)/bin/pip install --quiet 'onnxruntime-gpu[cuda,cudnn]>=1.27'
	touch $@
