# Everything runs in one virtual environment, .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Bytecode is written when a module is first imported: of sixteen thousand installed modules most never are.
INSTALL := install --quiet --no-compile --constraint constraints.txt
PAGE := ast_cli/report_page
ESBUILD := 0.28.2
SMOKE := .venv-smoke
SMOKE_BIN := $(SMOKE)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

unexport PYTHONDONTWRITEBYTECODE # each of the processes that the tests start would compile the program again

.DEFAULT_GOAL := help
.PHONY: help demo test test-newest test-newest-short test-oldest torture parity lint typecheck smoke docs page browser-packages browser-test format benchmark clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "  make %-18s %s\n", $$1, $$2}'

demo: $(VENV)/.installed ## set up and tag the sample files with the built-in model
	$(BIN)/ast classify sample_audio --model builtin --top-k 3

test: $(VENV)/.installed-dev ## set up and run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-newest: ## run the tests with the newest releases on the newest Python: what a user gets today; several GB
	tests/newest.sh all

test-newest-short: ## the same without torch, in three minutes: samples, doctor and the decoding tests
	tests/newest.sh short

test-oldest: ## run the tests with the oldest releases that pyproject.toml allows, on Python 3.11; several GB
	python3.11 -m venv .venv-oldest
	.venv-oldest/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints-oldest.txt --editable '.[openvino]' onnx pytest pytest-timeout pytest-xdist
	.venv-oldest/bin/python -m pytest -W default --numprocesses auto --dist worksteal

torture: $(VENV)/.installed-dev ## run the hour of long tests; TORTURE_PATHS=1000000 takes more of it
	$(BIN)/python -m pytest -m slow -s tests/torture

lint: $(VENV)/.installed-dev ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.installed-dev ## check types
	$(BIN)/mypy

docs: $(VENV)/.installed-dev ## write docs/cli.md and the man page from the commands, and the schema of the records
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/json_schema.py

browser-packages: $(VENV)/.installed-dev ## install what browser-test needs, Chromium by Debian's apt-get if it is missing
	tests/browser/install.sh $(BIN)/python

browser-test: browser-packages ## test the report page in headless Chromium
	$(BIN)/python -m pytest -m browser tests/browser

page: ## minify the report page's program with esbuild from npm
	npm exec --yes --package=esbuild@$(ESBUILD) -- esbuild $(PAGE)/page.js --minify --target=es2022 --outfile=$(PAGE)/page.min.js \
		--banner:js="/* page.js (sha256 $$(sha256sum $(PAGE)/page.js | cut -c1-64)) by esbuild $(ESBUILD), see README.md */"

format: $(VENV)/.installed-dev ## put the code into the house's format
	$(BIN)/ruff format .

benchmark: $(VENV)/.installed-dev ## measure start-up, whole command, front end and model against their peers
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/command.py --model builtin
	$(BIN)/python benchmarks/fbank.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/compare.py --model builtin --rounds 15
	$(BIN)/python benchmarks/compare.py --model base --rounds 3

smoke: $(VENV)/.installed-dev ## build the wheel, install it alone in a new environment, run it
	rm -rf $(SMOKE) dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	$(PYTHON) -m venv $(SMOKE)
	$(SMOKE_BIN)/python -m pip --disable-pip-version-check $(INSTALL) dist/*.whl
	cd $(SMOKE) && ../$(SMOKE_BIN)/ast --help
	cd $(SMOKE) && ../$(SMOKE_BIN)/ast classify ../sample_audio/rain.ogg --model builtin
	rm -rf $(SMOKE)

clean: ## remove what the other targets made
	rm -rf $(VENV) .venv-* .newest-root $(SMOKE) dist build .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) $(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) $(INSTALL) --editable '.[dev]'
	touch $(VENV)/.installed $@
