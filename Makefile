# `make quickstart` and `make test` need nothing but Python >= 3.11 and this file.

PYTHON ?= python3
BIN := .venv/bin

# Containers often forbid Python its caches. Without them every process compiles torch and transformers anew: an
# import of the trainer takes 23 seconds instead of 8.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-slow test-verl test-openenv test-verifiers check lint types install clean tiny

quickstart: .venv/installed
	$(BIN)/actfocus train --config recipes/frozen-lake-grpo.toml

# A file's tests share its fixtures, so they stay in one process.
test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

check: lint types test

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

install: .venv/installed

# The lock pins every version, so there is nothing to resolve, only to check. Most modules are never imported: only
# those of the trainer are compiled here, by an import, which halves the time of the installation.
.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "actfocus needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	$(BIN)/python -c "import actfocus.training.run"
	touch $@

# Trainers and servers whose pins differ from ours have virtual environments of their own; in the default test run
# their tests are skipped.
test-verl: .venv-verl/installed
	OMP_NUM_THREADS=1 .venv-verl/bin/python -m pytest tests/verl

test-openenv: .venv-openenv/installed
	.venv-openenv/bin/python -m pytest tests/integrations/test_openenv.py tests/integrations/test_openenv_contract.py

test-verifiers: .venv-verifiers/installed
	.venv-verifiers/bin/python -m pytest tests/integrations/test_verifiers.py tests/integrations/test_verifiers_contract.py

.venv-%/installed: pyproject.toml requirements-%.lock
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --no-compile -r requirements-$*.lock
	.venv-$*/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The shipped models, built again: 10 to 20 minutes each on one core, WebShop's more than an hour. FrozenLake sees
# so many random moves that it reads the lake well and plays badly: what is left for reinforcement is the choice.
WARMSTART := $(BIN)/actfocus warmstart --batch 16 --context-weight 0.3 --action-weight 4
SHOP_LESSON := $(WARMSTART) --env webshop --random-share 0.3 --remarks 5
WEIGHTS := src/actfocus/models/weights

tiny: .venv/installed
	rm -rf $(WEIGHTS) build/tiny-sudoku-plain build/tiny-webshop-pages
	$(WARMSTART) --env frozen-lake --env.success-rate 1 --random-share 0.8 --plain-share 0.5 \
		--lr 4e-3 --episodes 22400 --out $(WEIGHTS)/tiny-frozen-lake
	$(WARMSTART) --env sokoban --random-share 0.5 --plain-share 0.5 \
		--lr 4e-3 --episodes 22400 --out $(WEIGHTS)/tiny-sokoban
	$(WARMSTART) --env sudoku --random-share 0.4 --plain-share 0.8 \
		--lr 4e-3 --episodes 16000 --out build/tiny-sudoku-plain
	$(WARMSTART) --env sudoku --random-share 0.4 --model build/tiny-sudoku-plain --seed 1 \
		--lr 2e-3 --episodes 2400 --out $(WEIGHTS)/tiny-sudoku
	$(SHOP_LESSON) --plain-share 1 --midway --lr 4e-3 --episodes 56000 --out build/tiny-webshop-pages
	$(SHOP_LESSON) --model build/tiny-webshop-pages --batch 8 --seed 1 \
		--lr 2e-3 --episodes 3200 --out $(WEIGHTS)/tiny-webshop
