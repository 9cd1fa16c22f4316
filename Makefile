# Everything installs itself into .venv; nothing else is needed but Python >= 3.11, git and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
# Two processes with threads for two cores each would mostly wait for each other.
QUIETLY := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: help install demo test test-fast soak lint types types-library types-tests versions bench results docs speed docs-check clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## Install the library and everything its tests need into .venv

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(INSTALLED) ## Prune a small Mixtral's experts without a gradient; prints the table, saves a plot
	$(BIN)/python -m benchmarks expert_pruning --preset small --jobs 2 --out out

test: $(INSTALLED) ## Run all tests (at most 8 minutes on 2 cores)
	$(QUIETLY) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 10

test-fast: $(INSTALLED) ## Run the tests that take seconds
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

soak: $(INSTALLED) ## Kill drivers and workers, tear files, feed junk, sample spaces by the million, run benchmarks (hours)
	SEARCHLIB_SLOW=1 $(BIN)/python -m pytest tests/soak tests/faults tests/properties tests/fuzz tests/benchmarks tests/test_migration.py tests/test_repair.py tests/test_spending.py tests/spaces/test_exact_by_construction.py

versions: $(INSTALLED) ## Run the core's tests with the oldest and the newest libraries, in a venv each (minutes)
	SEARCHLIB_SLOW=1 $(BIN)/python -m pytest -s tests/test_library_versions.py

lint: $(INSTALLED) ## Check style and formatting rules
	$(BIN)/ruff check searchlib tests spaces objectives benchmarks docs

types: types-library types-tests ## Check types

types-library: $(INSTALLED)
	$(BIN)/mypy

types-tests: $(INSTALLED)
	$(BIN)/mypy --config-file= --cache-dir=.mypy_cache/tests --ignore-missing-imports --follow-imports=silent --explicit-package-bases tests

docs-check: $(INSTALLED) ## Run every example in the README and the docstrings
	$(BIN)/python -m pytest tests/test_readme.py tests/test_docstrings.py tests/docs

bench: $(INSTALLED) ## Run the paper presets of all benchmarks (hours); results go to benchmarks/results
	$(BIN)/python -m benchmarks expert_pruning --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks eval_subset --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks teaching --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks checkpoint_combination --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks solver_schedule --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks quantized_llm --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks mixed_precision --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks sparse_attention --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks pursuit --preset paper --jobs 2 --store out/pursuit --out benchmarks/results
	$(BIN)/python -m benchmarks uav_pursuit --preset paper --store out/uav --out benchmarks/results
	$(BIN)/python -m benchmarks traffic --preset paper --store out/traffic --out benchmarks/results
	$(BIN)/python -m benchmarks navigation --preset paper --store out/navigation --out benchmarks/results
	$(BIN)/python -m benchmarks exploration --preset paper --jobs 2 --store out/exploration --out benchmarks/results
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[peers]'
	$(BIN)/python -m benchmarks engine --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks scaling --preset paper --out benchmarks/results
	$(BIN)/python -m benchmarks speed --preset paper --out benchmarks/results

results: $(INSTALLED) ## Make docs/results.md and its pictures from the benchmarks' JSON
	$(BIN)/python -m benchmarks.results_page

docs: $(INSTALLED) ## Build the documentation into out/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

speed: $(INSTALLED) ## Measure the speed ratios (minutes)
	$(BIN)/python -m benchmarks speed --preset small --out out

clean: ## Remove what the targets above made (the model cache stays)
	rm -rf .venv build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
