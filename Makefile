# make demo    a learnt map of a real data set, from a clean clone
# make test    the whole test suite
# make bench   the benchmarks; NAME=... names the JSON under bench/results/
# make docs    the documentation site, build/docs/index.html
# make lint    ruff, mypy, clang-format
#
# Everything lives in .venv. torch is pinned and installed first, and fastpdr is built against it without pip's build
# isolation, which would fetch a second torch. A second call finds the environment as it is and takes seconds.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
NAME ?= local
SOURCES := CMakeLists.txt setup.py pyproject.toml $(wildcard cmake/*) $(wildcard csrc/*/*) $(wildcard csrc/include/*/*)
# setuptools warns of what an editable installation is.
INSTALL := PYTHONWARNINGS=ignore PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install -q --no-build-isolation -e
CPP := $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/cuda/*.cu* csrc/include/fastpdr/*.h tests/cpp/*/*.cpp tests/cuda*/*.h \
  tests/cuda*/*.cpp tests/cuda*/*.cu bench/*.cu bench/*/*.cpp)

.PHONY: demo test bench docs lint format clean

demo: $(VENV)/.demo
	$(BIN)/fastpdr demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -q

bench: $(VENV)/.bench
	$(BIN)/python -m pytest bench -q --benchmark-json=bench/results/$(NAME).json

# mkdocs-material announces its successor at every build.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

clean:
	rm -rf $(VENV) build demo fastpdr/_C*.so *.egg-info

# Each stamp is remade when what it depends on changes.
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "fastpdr needs Python 3.10 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q '$(TORCH)' 'setuptools>=77' 'pybind11>=3.0' 'cmake>=3.25' 'ninja>=1.11'
	touch $@

$(VENV)/.fastpdr: $(VENV)/.torch $(SOURCES)
	$(INSTALL) .
	touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.bench $(VENV)/.docs $(VENV)/.lint: $(VENV)/.%: $(VENV)/.fastpdr
	$(INSTALL) '.[$*]'
	touch $@
