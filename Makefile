# make book    the executable paper, from a fresh machine to _build/html
# make test    the test suite
# Python >= 3.10 and make are all that must be there; everything else goes into .venv.

PYTHON ?= python3
SHELL  := /bin/bash
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PORT   ?= 8000

.DEFAULT_GOAL := help
.PHONY: help book test bench bench-gpu install browser serve lint constraints clean distclean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*##/ { printf "%-13s %s\n", $$1, $$2 }' Makefile

book: $(STAMP) ## execute the chapters and build the site in _build/html (ARGS="--scale smoke" for options)
	$(BIN)/threefactors book $(ARGS)

# A file of tests stays with one worker, which makes its dear fixtures once. Files go in the order of their names: the
# book is built early by one worker, and read late, so that neither waits at the end.
test: $(STAMP) ## run the tests (ARGS="-m 'not slow'" for those that take seconds)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(STAMP) ## speed against the baselines, into _build/bench.json (ARGS=--record: for the book to show)
	$(BIN)/python -m tests.bench $(ARGS)

bench-gpu: $(STAMP) ## the same on a GPU, and on record: the book's page of speed shows it
	$(BIN)/python -m tests.bench --device cuda --record $(ARGS)

install: $(STAMP) ## the environment in .venv alone, which all others make first

browser: $(STAMP) ## a Chromium for the tests that read the site and for its PDF, where there is none
	$(BIN)/python -m playwright install $(ARGS) chromium

serve: ## look at the built site
	@test -f _build/html/index.html || { echo "there is no site yet; run: make book" >&2; exit 1; }
	@echo "the book is at http://localhost:$(PORT)/ (Ctrl-C ends this)"
	@$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html >/dev/null 2>&1

lint: $(STAMP) ## style and types, and the workflows on GitHub
	$(BIN)/ruff check lib tests
	$(BIN)/ruff format --check lib tests
	$(BIN)/mypy lib
	$(BIN)/yamllint --strict .github _config.yml _toc.yml CITATION.cff
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --quiet --offline --persona pedantic .github

constraints: $(STAMP) ## write the whole installed set to constraints.txt
	@{ $(BIN)/python -c 'import sys; print("# Python %d.%d" % sys.version_info[:2])'; \
	   $(BIN)/python -m pip freeze --exclude-editable --exclude threefactors; } > constraints.tmp
	@mv constraints.tmp constraints.txt && wc -l constraints.txt

clean: ## remove what was built; the environment and the store of results stay
	rm -rf _build book/*.ipynb

distclean: clean ## remove everything that make can make again, results included
	rm -rf $(VENV) .threefactors *.egg-info lib/*.egg-info

# pinned versions serve the Python that they were frozen with (constraints.txt's first line); for another
# one, and when the pinned set cannot be had, the ranges of requirements.txt decide
$(STAMP): requirements.txt pyproject.toml $(wildcard constraints.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "Python 3.10 or newer is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1 || true);" \
	       "name another one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; install its venv module" \
	       "(Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip || echo "pip stays as it is"
	@pinned=""; \
	frozen=$$(test ! -f constraints.txt || head -1 constraints.txt); \
	running=$$($(BIN)/python -c 'import sys; print("# Python %d.%d" % sys.version_info[:2])'); \
	test "$$frozen" != "$$running" || pinned="-c constraints.txt"; \
	echo "installing the requirements into $(VENV) $$pinned (minutes, once)"; \
	$(BIN)/python -m pip install --quiet -r requirements.txt -e . $$pinned \
	|| { test -n "$$pinned" && echo "the pinned versions cannot be had; taking the ranges" && \
	     $(BIN)/python -m pip install --quiet -r requirements.txt -e .; }
	@touch $@
