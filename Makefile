# Two commands do everything on a fresh machine: `make demo` and `make test`.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: help
help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: env
env: $(STAMP) ## Make the environment in .venv

# The very files whose hashes requirements/ has, servingrepo's own build included.
LOCKED := -m pip install --quiet --require-hashes --requirement

$(STAMP): pyproject.toml requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) \
		and "requirements/ is locked for Python 3.11 to 3.13: name one, as in make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(LOCKED) requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: house
house: env ## Write the rooms and the schema of docs/design.md, and the rules of docs/doctor.md, from the code
	$(BIN)/python -m tools.house
	$(BIN)/python -m tools.schema
	$(BIN)/python -m tools.doctor_rules

.PHONY: lock
lock: env ## Write requirements/ anew where pyproject.toml changed; all of it with UPGRADE=1
	$(BIN)/python tools/lock.py $(if $(UPGRADE),--upgrade)

.PHONY: demo
demo: env ## Train, promote, break, roll back: the whole tour with real models, without Docker
	$(BIN)/python demo/tour.py

.PHONY: hooks
hooks: env ## Let git run the linters before each commit, and look at its subject
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type commit-msg

LINTERS := ruff mypy bandit codespell shellcheck
.PHONY: lint $(LINTERS)
lint: $(LINTERS) ## ruff, mypy --strict, bandit, codespell and shellcheck; each is a target of its own too

ruff: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy: env
	$(BIN)/mypy

bandit: env
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive servingrepo compose examples tools demo

codespell: env
	$(BIN)/codespell .

shellcheck: env
	$(BIN)/shellcheck .ci/run compose/*.sh compose/standin/tensorflow_model_server tests/*/prepare

.PHONY: test
test: lint ## Lint and every test that needs neither Docker nor a browser
	$(BIN)/pytest -n $(WORKERS) -m "not docker and not producers and not browser"

# Without the lock: what the package's own bounds let a user's pip choose. OLDEST and NEWEST name the interpreters.
OLDEST ?= python3.11
NEWEST ?= python3.13
UNLOCKED = $(BIN)/uv venv --quiet --clear --no-python-downloads --python $(1) $(VENV)-$(2) && \
	$(BIN)/uv pip install --quiet --python $(VENV)-$(2)/bin/python --resolution $(3) --editable . --group dev && \
	$(VENV)-$(2)/bin/pytest -n $(WORKERS) -m "not docker and not producers and not browser"

.PHONY: test-lowest
test-lowest: env ## make test's tests on Python 3.11 with the lowest versions that pyproject.toml allows
	$(call UNLOCKED,$(OLDEST),lowest,lowest-direct)

.PHONY: test-newest
test-newest: env ## make test's tests on Python 3.13 with the newest versions that there are
	$(call UNLOCKED,$(NEWEST),newest,highest)

.PHONY: test-docker
test-docker: env ## The tests that need Docker, and those that must not mind it; as root it installs and starts what is missing
	tests/docker/prepare
	$(BIN)/pytest -n $(WORKERS) -m docker
	$(BIN)/python -m tests.docker.beside -n $(WORKERS) -m "tf and not docker and not producers" \
		tests/cli tests/docs tests/servers tests/repository tests/verbs/test_compatibility.py tests/verbs/test_promotion.py \
		tests/fleet/test_reasons.py tests/fleet/test_switch.py tests/crash/test_processes.py

.PHONY: browser
browser: env ## Reports in headless Chromium; as root it installs what is missing
	tests/browser/prepare
	$(BIN)/pytest -n $(WORKERS) -m browser

.PHONY: producers
producers: env ## Real MLflow, TensorFlow 2.15 Estimators, TFX, TF Hub and SageMaker leave runs, which are promoted
	$(BIN)/python -m tests.producers.environments
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m producers tests/producers

.PHONY: crash
crash: env ## Every failpoint of every writing command with every fault
	$(BIN)/pytest -n $(WORKERS) -m crash tests/crash

.PHONY: swaps
swaps: env ## A hundred version swaps of the embedded server under constant load
	SERVINGREPO_SWAPS=100 $(BIN)/pytest -s tests/embedded/test_swaps.py

.PHONY: races
races: env ## Sixteen processes at one repository for minutes, killed at random (SECONDS=120), as JSON
	$(BIN)/python -m tests.crash.races --seconds $(or $(SECONDS),120)

.PHONY: load
load: env ## 50 promotions, label moves and rollbacks on 3 servers under 8 clients
	SERVINGREPO_LOAD_CHANGES=50 $(BIN)/pytest tests/fleet/test_under_load.py

.PHONY: phases
phases: env ## A server killed, hung, stuttering, slow or busy for a minute in every phase of a switch
	SERVINGREPO_PHASES=all $(BIN)/pytest -n $(WORKERS) tests/verbs/test_phases.py

.PHONY: reliability
reliability: env ## The table of docs/reliability.md: faults, power losses, races, mutations; root for all of it
	tests/crash/prepare
	$(BIN)/python -m tests.crash.reliability --workers $(WORKERS)

.PHONY: sequences
sequences: env ## Random sequences of commands with faults against a model (EXAMPLES=1000), as JSON
	$(BIN)/python -m tests.crash.machine --examples $(or $(EXAMPLES),1000)

.PHONY: long-life
long-life: env ## Ten thousand promotions with old versions pruned (PROMOTIONS=10000), as JSON
	$(BIN)/python -m tests.crash.long_life --promotions $(or $(PROMOTIONS),10000)

.PHONY: flips
flips: env ## 2,000 single bits flipped in models that others wrote, published and in run directories
	FLIPS=2000 $(BIN)/pytest -n $(WORKERS) tests/savedmodel/test_flips.py

FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: env ## Each parser of strangers' files, fuzzed with coverage for FUZZ_SECONDS
	$(BIN)/python $(LOCKED) requirements/fuzz.txt
	for parser in $$($(BIN)/python tests/fuzz/parsers.py --list); do \
		$(BIN)/python tests/fuzz/parsers.py $$parser -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1000 \
			-timeout=20 -max_len=4096 || exit 1; \
	done

.PHONY: bench
bench: env ## The benchmarks, as JSON
	$(BIN)/python $(LOCKED) requirements/bench.txt
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/rollback.py
	$(BIN)/python benchmarks/history.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/promote.py
	$(BIN)/python benchmarks/verify.py
	$(BIN)/python benchmarks/adopt.py
	$(BIN)/python benchmarks/smoke.py
	$(BIN)/python benchmarks/cases.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/container.py
	$(BIN)/python benchmarks/runs.py
	$(BIN)/python benchmarks/fleet.py
	tests/browser/prepare
	$(BIN)/python benchmarks/report.py

.PHONY: clean
clean: ## Remove what make made
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest .producers demo/work .mypy_cache .pytest_cache .ruff_cache .hypothesis
