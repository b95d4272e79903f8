# make train [ARGS='--seed=1']   train the demo policy; ARGS are flags of eijax.train
# make test  [ARGS='-k packing'] run the tests; ARGS are arguments of pytest

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

VENV_PYTHON := $(VENV)/bin/python
SPEC := setup.py pyproject.toml

.PHONY: train test
.DELETE_ON_ERROR:
# Two installations into one environment would get in each other's way.
.NOTPARALLEL:

train: $(VENV)/.installed
	$(VENV_PYTHON) -m eijax.train $(ARGS)

test: $(VENV)/.installed-test
	$(VENV_PYTHON) -m pytest -q $(ARGS)

# $(call install,TARGET): the project in place, so that edits count. Run again after a
# broken attempt, it picks up what is there. Debian ships Python without ensurepip, and
# often with pip, which can then fill the environment.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: PYTHON=$(PYTHON) must be Python 3.11 or newer; give another one, e.g. make PYTHON=python3.12" >&2; exit 2; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	  else $(PYTHON) -m venv --without-pip $(VENV) && \
	    $(PYTHON) -m pip --python $(VENV_PYTHON) install --quiet --disable-pip-version-check pip; fi || \
	  { echo "error: $(PYTHON) cannot create $(VENV) with pip in it; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@echo "installing $(1) into $(VENV) (a minute or two the first time)"
	@$(VENV_PYTHON) -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS='ignore:Editable installation' $(VENV_PYTHON) -m pip install --quiet --editable '$(1)'
endef

$(VENV)/.installed: $(SPEC)
	$(call install,.)
	@touch $@

$(VENV)/.installed-test: $(SPEC)
	$(call install,.[test])
	@touch $(VENV)/.installed $@
