# make demo    a 576x576 picture of tissue, tissue.png
# make test    the test suite, with every extra installed, but for two slow parts of it:
# make test-browser test-release
# make site    the documentation, with a page in which bundled models run: python -m http.server --directory site
# make page    this page alone, in site/page
# make lint types docs wheel
# make wheel DIFFNCA_PREBUILT=1    a wheel for Linux and this architecture, which holds the native code
#
# Each creates .venv (Python >= 3.11) where it is missing and installs the versions of requirements.lock.

VENV ?= .venv
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3 python,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCK := requirements.lock
BUILD_TOOLS := hatchling editables
EXTRAS := slides,tiff,giga,eval,features,baselines,films,export,app,trackers,docs,test,dev
TORCH := $(shell sed -n 's/^torch==//p' $(LOCK))
CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo site page test test-browser test-release lint types docs wheel lock clean

demo: $(VENV)/core
	$(BIN)/diffnca sample pathology-4step --height 576 --width 576 --seed 0 --out tissue.png

site: docs # which empties the folder
	$(MAKE) page

page: $(VENV)/core
	$(BIN)/diffnca export pathology-4step colon-4step aerial-4step faces-4step --format web --weights int8 --out site/page

# commands that the tests start load compiled files faster
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: $(VENV)/all
	$(PYTEST)
	@echo "left out: make test-browser (pages in Chromium), test-release (the scores of the bundled models, the wheel)"

test-browser test-release: $(VENV)/all
	$(PYTEST) -m $(@:test-%=%)

lint: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/all
	$(BIN)/mypy

docs: $(VENV)/all
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

export DIFFNCA_PREBUILT

wheel: $(VENV)/core
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# The CPU build of torch where there is no NVIDIA GPU: from the configured package index or folder if it is there,
# else from PyTorch's own index, else the plain build (larger, works everywhere).
$(VENV)/torch: $(LOCK)
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: install it, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if nvidia-smi -L >/dev/null 2>&1 || test "$$(uname -s)" != Linux; then \
		$(PIP) install --quiet -c $(LOCK) torch==$(TORCH); \
	else \
		$(PIP) install --quiet -c $(LOCK) torch==$(TORCH)+cpu 2>/dev/null \
		|| $(PIP) --retries 0 --timeout 10 install --quiet -c $(LOCK) --extra-index-url $(CPU_INDEX) torch==$(TORCH)+cpu 2>/dev/null \
		|| { echo "no CPU build of torch $(TORCH) within reach: installing the plain one"; \
		     $(PIP) install --quiet -c $(LOCK) torch==$(TORCH); }; \
	fi
	@touch $@

$(VENV)/core: $(VENV)/torch pyproject.toml
	$(PIP) install --quiet -c $(LOCK) $(BUILD_TOOLS)
	$(PIP) install --quiet -c $(LOCK) --no-build-isolation -e .
	@touch $@

$(VENV)/all: $(VENV)/core
	$(PIP) install --quiet -c $(LOCK) --no-build-isolation -e ".[$(EXTRAS)]"
	@touch $@

lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --extra-index-url $(CPU_INDEX) torch==$(TORCH)+cpu $(BUILD_TOOLS) ".[$(EXTRAS)]"
	{ sed -n '/^#/p' $(LOCK); $(VENV)-lock/bin/python -m pip freeze --all | grep -viE '^(diffnca|pip)\b' \
		| sed 's/+cpu$$//'; } > $(LOCK).new
	mv $(LOCK).new $(LOCK)
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-lock build dist site
