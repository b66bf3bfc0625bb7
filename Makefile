# Two commands to know: `make lab` opens the course, `make test` runs everything that must hold.
# Both create .venv and install into it on the first call only. Another Python: make lab PYTHON=python3.13

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COURSE := $(VENV)/.installed-course
LECTURE := $(VENV)/.installed-lecture
TEST := $(VENV)/.installed-test
VOILA := $(VENV)/.installed-voila
DECKS := tests/test_slides.py
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: help lab slides lecture demo test course notebooks images lint nbval decks clean

help:
	@echo "make lab        open the course in JupyterLab"
	@echo "make test       run everything that must hold"
	@echo "make slides     build a deck of slides for every chapter in build/slides"
	@echo "make lecture CHAPTER=04   open a chapter in JupyterLab, ready to present"
	@echo "make demo       open the schedule laboratory as a page of its own, without code (Voila)"
	@echo "make course     execute all chapters, with a table of seconds and checks passed"
	@echo "make notebooks  execute all chapters and store their outputs"
	@echo "make images     draw the pictures in images/"
	@echo "make clean      remove .venv and everything else that these commands made"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + ". Try: make lab PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(COURSE): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e .
	@touch $@

$(LECTURE): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e ".[lecture]"
	@touch $@

$(TEST): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e ".[test]"
	@touch $@

$(VOILA): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -e ".[voila]"
	@touch $@

lab: $(COURSE)
	$(BIN)/python tools/lab.py

slides: $(COURSE)
	$(BIN)/python tools/slides.py

lecture: $(LECTURE)
	@$(BIN)/python tools/lab.py --lecture "$(CHAPTER)"

demo: $(VOILA)
	$(BIN)/python tools/lab.py --demo

# The sliders first and alone, since it is measured how fast they redraw. Then two lanes, because most of the time goes
# to one core: the other tests on the screen, linters, notebooks and slides behind them.
# One thread each keeps the lanes from fighting over two cores.
test: export OMP_NUM_THREADS = 1
# The cells of chapter 12 would train on a GPU for minutes (tests/conftest.py keeps the other tests on the CPU).
nbval: export CUDA_VISIBLE_DEVICES =
# What its reader has solved is no part of a chapter: a folder that is not there stands for nothing solved.
test: export DDPM_EDU_HOME = $(CURDIR)/build/nothing-solved
test: $(TEST)
	@log=$$(mktemp); lane=; trap 'kill $$lane 2>/dev/null; rm -f "$$log"' EXIT; trap 'exit 130' INT TERM; \
	status=0; $(BIN)/python -m pytest tests/test_browser*.py || status=1; \
	$(MAKE) -k --no-print-directory lint nbval decks >"$$log" 2>&1 & lane=$$!; \
	$(BIN)/python -m pytest --ignore-glob 'tests/test_browser*.py' --ignore $(DECKS) || status=1; \
	wait $$lane || status=1; cat "$$log"; \
	[ $$status = 0 ] && echo "make test: everything holds" || echo "make test: FAILED, see above"; exit $$status

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/equations.py --check

# nbval starts kernels whose libraries warn about themselves; that warnings are errors is for our own tests.
# The kernels inherit PYTHONPATH, and with it the block on every connection that leaves this computer.
# exec, so that it is the tests that an interrupt reaches, not a shell around them.
nbval: $(TEST)
	exec env PYTHONPATH="$(CURDIR)/tests/no_network" $(BIN)/python -m pytest -W default -p no:cacheprovider \
		--nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks

decks: $(TEST)
	exec $(BIN)/python -m pytest -p no:cacheprovider $(DECKS)

course: $(COURSE)
	$(BIN)/python tools/course.py

notebooks: $(COURSE)
	$(BIN)/python tools/course.py --write
	$(BIN)/python tools/equations.py

images: $(TEST)
	$(BIN)/python tools/make_images.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache tests/browser-output
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
