# make train  [ARGS='--seed=1']   train the demo policy; ARGS are flags of eijax.train
# make test   [ARGS='-k packing'] run the tests; ARGS are arguments of pytest
# make test-slow                 run the tests that take longest: runs killed again and again, and the like
# make parity [ARGS='-k qwen3']   compare with transformers, torch and peft, in an environment of their own
# make plan-check                compile for TPU slices ahead of time, in an environment of its own; needs no TPU

PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
PLAN_VENV ?= .venv-plan
# Arguments of `pip install` that bring torch. A CPU build is enough, and far smaller; BUILD.md says how to get one.
TORCH ?= torch==2.13.0
ARGS ?=

VENV_PYTHON := $(VENV)/bin/python
PARITY_PYTHON := $(PARITY_VENV)/bin/python
PLAN_PYTHON := $(PLAN_VENV)/bin/python
SPEC := setup.py pyproject.toml

.PHONY: train test test-slow parity plan-check
.DELETE_ON_ERROR:
# Two installations into one environment would get in each other's way.
.NOTPARALLEL:

# XLA's CPU backend asks for its large temporary arrays anew at every call; with huge pages glibc hands them out
# without four thousand page faults each. A quarter of the time of an update on two cores; other C libraries ignore it.
train: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
train: $(VENV)/.installed
	$(VENV_PYTHON) -m eijax.train $(ARGS)

test: $(VENV)/.installed-test
	$(VENV_PYTHON) -m pytest -q -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder -m 'not slow' $(ARGS)

test-slow: $(VENV)/.installed-test
	$(VENV_PYTHON) -m pytest -q -n auto --maxprocesses=4 --dist=load -m slow $(ARGS)

parity: $(PARITY_VENV)/.installed-parity
	$(PARITY_PYTHON) -m pytest -q tests/parity $(ARGS)

plan-check: $(PLAN_VENV)/.installed-plan
	$(PLAN_PYTHON) -m pytest -q tests/ahead_of_time $(ARGS)

# $(call environment,FOLDER): a virtual environment with pip in it. Run again after a
# broken attempt, it picks up what is there. Debian ships Python without ensurepip, and
# often with pip, which can then fill the environment.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: PYTHON=$(PYTHON) must be Python 3.11 or newer; give another one, e.g. make PYTHON=python3.12" >&2; exit 2; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(1); \
	  else $(PYTHON) -m venv --without-pip $(1) && \
	    $(PYTHON) -m pip --python $(1)/bin/python install --quiet --disable-pip-version-check pip; fi || \
	  { echo "error: $(PYTHON) cannot create $(1) with pip in it; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@$(1)/bin/python -m pip install --quiet --upgrade pip
endef

# $(call install,FOLDER,TARGET): the project in place, so that edits count.
define install
	@echo "installing $(2) into $(1) (a minute or two the first time)"
	@PYTHONWARNINGS='ignore:Editable installation' $(1)/bin/python -m pip install --quiet --editable '$(2)'
endef

$(VENV)/.installed: $(SPEC)
	$(call environment,$(VENV))
	$(call install,$(VENV),.)
	@touch $@

$(VENV)/.installed-test: $(SPEC)
	$(call environment,$(VENV))
	$(call install,$(VENV),.[test])
	@touch $(VENV)/.installed $@

# torch first and by itself: what comes after finds it there and asks for no other.
$(PARITY_VENV)/.installed-parity: $(SPEC)
	$(call environment,$(PARITY_VENV))
	@echo "installing $(TORCH) into $(PARITY_VENV)"
	@$(PARITY_PYTHON) -m pip install --quiet $(TORCH) || \
	  { echo "error: pip cannot install TORCH=$(TORCH); give a release that your index has, e.g. make parity TORCH=torch, see BUILD.md" >&2; exit 2; }
	$(call install,$(PARITY_VENV),.[parity])
	@touch $@

$(PLAN_VENV)/.installed-plan: $(SPEC)
	$(call environment,$(PLAN_VENV))
	$(call install,$(PLAN_VENV),.[plan])
	@$(PLAN_PYTHON) -m pip install --quiet 'pytest>=8'
	@touch $@
