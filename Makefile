# `make demo` trains and compares three methods on a made-up dataset; `make test` and `make lint`
# are what CI runs. Only a Python with venv is needed: the rest goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv

# Where it is set, every process compiles torch anew, which takes it longer than most tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env demo test test-page lint docs boards speed lock picture clean

env: .venv/.made

.venv/.made: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	    "adbench needs Python 3.11 or newer; name one: make PYTHON=python3.12 env")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --require-hashes -r requirements.lock
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: env
	$(BIN)/adbench run --methods anoddpm,pddpm,autoddpm --dataset synthbrain --profile tiny --slots 2
	$(BIN)/adbench report

test: env # a method is fitted by one worker
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test-page: env # the page in a real Chromium: $CHROMIUM, one on the PATH, or playwright's own
	$(UV) pip install --quiet --python $(BIN)/python -r pyproject.toml --extra page
	$(BIN)/python -m pytest tests/browser

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

docs: env # into docs/_build/html; a warning is an error, a link that leads nowhere too
	$(BIN)/python -m sphinx -q -W --keep-going -j auto -b html docs docs/_build/html

boards: env # results/boards; interrupted, it goes on. Photographs come with scikit-image, digits with npm
	$(UV) pip install --python $(BIN)/python --quiet scikit-image
	nice $(BIN)/python results/boards/build.py

speed: env # results/speed.md: of this machine. Interrupted, growth goes on; all of it takes an hour on two cores
	$(BIN)/adbench speed --methods anoddpm,pddpm,patchcore --dataset phantom --profile tiny --against loop
	$(BIN)/adbench speed --metrics 100
	$(BIN)/adbench speed --growth images=1000,3000,30000 --growth records=10,100,1000 --growth artifacts=1000,10000,100000

picture: env # docs/packages.svg, of docs/architecture.md
	$(BIN)/python docs/draw_packages.py

lock: # after a change of the dependencies in pyproject.toml
	test -x $(UV) || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv; }
	echo opencv-python > $(BIN)/excluded # which adeval wants, and the headless one is as good
	$(UV) pip compile --quiet --no-config --excludes $(BIN)/excluded --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --custom-compile-command 'make lock' \
	    pyproject.toml --extra dev --extra docs -o requirements.lock

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
