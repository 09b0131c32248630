# SPDX-License-Identifier: Apache-2.0
#
# Every target sets up what it needs: python3 >= 3.10, a C++17 compiler and a package index are
# enough. CMake and ninja come from the index where the machine has none.

PY ?= python3
VENV ?= .venv
# Extra arguments for pytest, for example PYTEST_ARGS="-k ties -x", and for the demo.
PYTEST_ARGS ?=
DEMO_ARGS ?=
# Which tests: a marker expression of pytest, nothing for all of them.
MARKS ?= not slow
# Processes that share the tests, a file at a time; memory is for some. They share the CPUs as well:
# with twice as many threads, tests that train took two thirds longer, four times as long where
# threads that wait spin.
TEST_JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n < 4 ? n : 4)))
TEST_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); n=$$((n / $(TEST_JOBS))); echo $$((n > 1 ? n : 1)))
PYTEST = OMP_NUM_THREADS=$(TEST_THREADS) OMP_WAIT_POLICY=passive $(VENV_PYTHON) -m pytest \
         -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

VENV_PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
EXTRAS := dev,torch,sklearn,models,diffusion,transport,data,cli,report

# What is installed: a wheel of these sources, or one that `make wheel` built from them.
WHEEL ?=

# The kernels for GPUs take minutes to compile, so without one in the machine they are left out; the
# wheel has them wherever nvcc works. DDKERN_CUDA=AUTO or ON builds them here as well.
DDKERN_CUDA ?= $(if $(wildcard /dev/nvidiactl /dev/dxg),AUTO,OFF)

# What an installed ddkern is made of. find runs at every call, so new files count at once.
SOURCES := CMakeLists.txt pyproject.toml constraints-ci.txt README.md LICENSE \
           $(shell find csrc -type f) \
           $(shell find python/ddkern -type f ! -name '*.pyc' ! -name '*.so')
CXX_FILES := $(shell find csrc tests/simt -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \))

# Byte code of what is installed is written with its first import: most modules of torch never have one.
# Without, every process of the tests would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

# Nothing that runs here may fetch a model or a data set.
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Both names, since older versions of pip apply the first one to isolated builds as well.
export PIP_CONSTRAINT := $(abspath constraints-ci.txt)
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)

.DELETE_ON_ERROR:
.PHONY: help setup dependencies test test-slow simt test-simt simt-asan demo lint lint-types \
        lint-python lint-cxx format bench asan stubs check-stubs wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.created:
	@$(PY) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and f"ddkern needs Python 3.10 or newer; $(PY) is {v.major}.{v.minor} (choose another with: make PY=...)")'
	$(PY) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install --quiet 'build>=1.2' 'scikit-build-core>=0.11' 'pybind11>=2.13' 'cmake>=3.24' ninja
	@touch $@

$(VENV)/.dependencies: $(VENV)/.created pyproject.toml constraints-ci.txt .ci/requirements.py
	$(VENV_PYTHON) .ci/requirements.py $(EXTRAS) > $(VENV)/requirements.txt
	$(VENV_PYTHON) -m pip install --quiet --no-compile -r $(VENV)/requirements.txt
	@touch $@

dependencies: $(VENV)/.dependencies # all but ddkern itself

# Without isolation the paths of the build tools stay the same, and with them what is compiled already.
COMPILED := build/compiled
$(COMPILED)/.done: $(VENV)/.created $(SOURCES)
	rm -rf $(COMPILED)
	DDKERN_CUDA=$(DDKERN_CUDA) $(VENV_PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation -w $(COMPILED) .
	@touch $@

$(INSTALLED): $(VENV)/.dependencies $(SOURCES) $(if $(WHEEL),,$(COMPILED)/.done)
	$(VENV_PYTHON) -m pip install --quiet --no-compile --no-deps --force-reinstall \
	    $(or $(WHEEL),$(COMPILED)/ddkern-*.whl)
	@touch $@

# Compiles while packages are fetched.
SIDE_BY_SIDE := $(MAKE) --no-print-directory --jobs=2
setup: ## create the virtual environment and install ddkern into it
	+@$(SIDE_BY_SIDE) $(INSTALLED)

test: ## run all tests but those marked `slow`
	+@$(SIDE_BY_SIDE) $(INSTALLED) simt
	DDKERN_SIMT_PATH=$(abspath $(SIMT)) $(PYTEST) -m '$(MARKS)' $(PYTEST_ARGS) tests

test-slow: ## run the tests marked `slow`
	+@$(MAKE) --no-print-directory test MARKS=slow

demo: setup ## distil handwritten digits through a diffusion prior, evaluate, write a report
	$(VENV_PYTHON) -m ddkern.demo --out build/demo $(DEMO_ARGS)

lint: setup ## ruff, mypy and clang-format, changing nothing
	+@$(SIDE_BY_SIDE) --output-sync lint-types lint-python lint-cxx
lint-types:
	$(VENV)/bin/mypy
lint-python:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
lint-cxx:
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)

format: setup ## format every source file in place
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CXX_FILES)

# ------------------------------------------------------------------------------------- benchmarks
$(VENV)/.bench: $(INSTALLED)
	DDKERN_CUDA=$(DDKERN_CUDA) $(VENV_PYTHON) -m pip install --quiet --no-build-isolation '.[$(EXTRAS),bench]'
	@touch $@

bench: $(VENV)/.bench ## measure against scikit-learn, faiss and torch (about an hour)
	$(VENV_PYTHON) -m pytest $(PYTEST_ARGS) bench

# ------------------------------------------------------------------------------------- sanitizers
# A second build in a package folder of its own, found before the installed one by PYTHONPATH. The
# interpreter is not instrumented: the runtimes are preloaded, and leaks of Python are not ours. A
# report ends the process, so pytest must not hold back what is written to the descriptors. What
# this CPU cannot run is not built.
ASAN := build/asan
SANITIZER_RUNTIMES = $(shell $(CXX) -print-file-name=libasan.so) \
                     $(shell $(CXX) -print-file-name=libubsan.so)

asan: setup ## run the tests marked `sanitize` under ASan and UBSan (needs g++)
	PATH="$(abspath $(VENV))/bin:$$PATH" CXX="$(CXX)" $(VENV)/bin/cmake -S . -B $(ASAN) -G Ninja \
	    -DCMAKE_BUILD_TYPE=None -DDDKERN_CUDA=OFF '-DDDKERN_SANITIZE=address;undefined' \
	    "-DDDKERN_ISA_LEVELS=$$($(VENV_PYTHON) -c 'import ddkern._core as m; print(*m.isa_available(), sep=";")')" \
	    -DPython_EXECUTABLE=$(abspath $(VENV_PYTHON)) \
	    -Dpybind11_DIR="$$($(VENV_PYTHON) -m pybind11 --cmakedir)"
	PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/cmake --build $(ASAN)
	rm -rf $(ASAN)/package
	mkdir -p $(ASAN)/package
	cp -R python/ddkern $(ASAN)/package/
	find $(ASAN)/package -name '*.so' -delete
	$(VENV)/bin/cmake --install $(ASAN) --prefix $(ASAN)/package
	LD_PRELOAD="$(SANITIZER_RUNTIMES)" PYTHONPATH=$(abspath $(ASAN)/package) \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(VENV_PYTHON) -c 'import ddkern._core as m; assert "$(ASAN)" in m.__file__, m.__file__'
	LD_PRELOAD="$(SANITIZER_RUNTIMES)" PYTHONPATH=$(abspath $(ASAN)/package) \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(PYTEST) -m sanitize -p no:cacheprovider --capture=sys \
	    $(PYTEST_ARGS) $(shell grep -rl mark.sanitize tests)

# ------------------------------------------------------------------------- CUDA kernels on the CPU
# The .cu files compiled by the C++ compiler for the threads of tests/simt: no GPU and no nvcc.
SIMT := build/simt
SIMT_ASAN := build/simt-asan

# $(call build_simt,folder,sanitizers,OpenMP)
define build_simt
PATH="$(abspath $(VENV))/bin:$$PATH" CXX="$(CXX)" $(VENV)/bin/cmake -S . -B $(1) -G Ninja \
    --log-level=WARNING -DCMAKE_BUILD_TYPE=None -DDDKERN_CUDA=OFF -DDDKERN_SIMT=ON '-DDDKERN_SANITIZE=$(2)' \
    -DDDKERN_OPENMP=$(3) \
    -DPython_EXECUTABLE=$(abspath $(VENV_PYTHON)) \
    -Dpybind11_DIR="$$($(VENV_PYTHON) -m pybind11 --cmakedir)"
PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/cmake --build $(1) --target _simt
endef

simt: $(VENV)/.created ## build the CUDA kernels for the CPU into build/simt
	$(call build_simt,$(SIMT),,AUTO)

test-simt: setup simt ## run the tests of the CUDA kernels on the CPU
	DDKERN_SIMT_PATH=$(abspath $(SIMT)) $(PYTEST) $(PYTEST_ARGS) tests/simt

# Without OpenMP: threads of a kernel are tests/simt's own, and one build shows that this works.
simt-asan: setup ## the same under ASan and UBSan (needs g++)
	$(call build_simt,$(SIMT_ASAN),address;undefined,OFF)
	LD_PRELOAD="$(SANITIZER_RUNTIMES)" DDKERN_SIMT_PATH=$(abspath $(SIMT_ASAN)) \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(PYTEST) -p no:cacheprovider --capture=sys $(PYTEST_ARGS) tests/simt

# ---------------------------------------------------------------------------------- type stubs
stubs: setup ## regenerate python/ddkern/_core.pyi and _cuda.pyi from the built modules
	$(VENV_PYTHON) .ci/stubs.py

check-stubs: setup ## fail where the stubs differ from the built modules
	$(VENV_PYTHON) .ci/stubs.py --check

# --------------------------------------------------------------------------------------- packages
DIST := build/dist

wheel: $(VENV)/.created ## build the source distribution, and a wheel from it, into build/dist
	rm -rf $(DIST)
	$(VENV_PYTHON) -m build --outdir $(DIST) .

clean: ## remove what was built; the virtual environment stays
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f $(INSTALLED) $(VENV)/.bench
