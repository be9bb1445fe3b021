PYTHON ?= python3
BIN := .venv/bin
MODEL ?= Qwen/Qwen2.5-7B-Instruct
PORT ?= 8000
AXE := 4.14.1
ZENSICAL := 0.0.73
PLAYERS := verifiers skyrl openenv verl
# A worker that has nothing left takes tests of the other one; neighbours, which share fixtures, stay together.
WORKERS := -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help build test test-lowest test-long train test-train test-train-lowest test-environments bench-train bench-gpu serve-llm check resolve format pictures docs bench dist clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

build: .venv/base  ## install the package and build the embedded sample into ./store
	$(BIN)/stepsearch-data build --stage all

test: .venv/test  ## install what the tests need and run them
	$(BIN)/python -m pytest $(WORKERS) -m "not slow and not long"

test-lowest: .venv-lowest/done  ## the same tests, with the lowest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest $(WORKERS) -m "not slow and not long"

test-long: .venv/test .venv/browser .venv/ray .venv/traces  ## the tests that take long: a browser, a Hub that fails in every way, kill -9, Ray
	$(BIN)/python -m pytest $(WORKERS) -m long

train: .venv-train/done  ## compare rewards of searches with outcome-only PPO on tiny models (installs torch; five minutes on two cores)
	.venv-train/bin/stepsearch-data train --demo quick

bench-train: .venv-train/done  ## measure rollouts and updates of the trainer, on a GPU where there is one
	.venv-train/bin/python benchmarks/rollouts.py
	.venv-train/bin/python benchmarks/updates.py --grpo --overlap --late

bench-gpu: .venv-train/done  ## check and measure the trainer on a GPU, in ten minutes
	.venv-train/bin/python -m benchmarks.gpu

test-train: .venv-train/done .venv-train/vllm  ## test the trainer, TRL's trainers and a real server with tiny models (installs torch, downloads vLLM)
	.venv-train/bin/python -m pytest $(WORKERS) tests/trainer tests/evaluation tests/environments/test_trl.py
	.venv-train/bin/python -m pytest -m slow tests/test_real_server.py tests/exports/test_trl.py

test-train-lowest: .venv-train-lowest/done  ## the trainer's own tests, but slow and long ones, with the lowest versions
	.venv-train-lowest/bin/python -m pytest $(WORKERS) -m "not slow and not long" tests/trainer tests/evaluation

test-environments: $(PLAYERS:%=.venv-%/done)  ## play in a store by verifiers, SkyRL-Gym, OpenEnv and verl, each installed by itself (2.5 GB)
	for name in $(PLAYERS); do .venv-$$name/bin/python -m pytest -W default tests/environments/test_$$name.py || exit 1; done

serve-llm: .venv-vllm/done  ## serve MODEL with vLLM on PORT for --llm (needs a CUDA GPU)
	.venv-vllm/bin/vllm serve $(MODEL) --host 127.0.0.1 --port $(PORT) \
	  --max-model-len 8192 --enable-prefix-caching --generation-config vllm $(VLLM_FLAGS)

check: .venv/check node_modules/.package-lock.json  ## lint, format and types, of the report's JavaScript too (needs npm)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/report/declarations.py >stepsearch_data/report/page/shapes.d.ts
	npm run --silent check

resolve: .venv/bin/uv  ## show that the trainer and vLLM install together, by what their packages ask for
	@$(UV) compile --quiet --python-platform x86_64-manylinux_2_35 --extra train --extra vllm pyproject.toml >/dev/null

format: .venv/check node_modules/.package-lock.json  ## mend what the linters can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	npm run --silent format

pictures: .venv/test .venv/browser  ## draw docs/images anew: the report in a browser, the experiment from its tables
	$(BIN)/python benchmarks/pictures.py

docs: .venv-docs/done  ## build docs/ into a site in ./site; a link to nowhere fails
	.venv-docs/bin/zensical build --strict --clean

bench: .venv/test .venv/browser  ## measure how a build scales, a model is asked, rollouts are scored, a report opens, SQL answers, links are found, faults are caught (about 40 minutes)
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/llm.py
	$(BIN)/python benchmarks/rewards.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/sql.py
	$(BIN)/python benchmarks/mine.py
	$(BIN)/python benchmarks/verify.py

dist: .venv/base  ## build the wheel and try it in a clean environment
	rm -rf dist && $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --clear dist/env && dist/env/bin/pip install --quiet dist/*.whl
	dist/env/bin/stepsearch-data build --store dist/store --quiet && rm -rf dist/env dist/store

clean:  ## remove everything that make made
	rm -rf .venv .venv-docs .venv-lowest .venv-train .venv-train-lowest .venv-vllm $(PLAYERS:%=.venv-%) store dist site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis node_modules

# uv installs in seconds what takes pip minutes. It does not read pip's settings: these two say where packages are.
setting = "$${PIP_$(1):-$$($(BIN)/pip config get global.$(2) 2>/dev/null)}"
UV := UV_DEFAULT_INDEX=$(call setting,INDEX_URL,index-url) UV_FIND_LINKS=$(call setting,FIND_LINKS,find-links) $(BIN)/uv pip
INSTALL = @echo "installing into $(@D)"; $(UV) install --quiet --python $(@D)/bin/python
# It leaves compiling to the first import, so Python must keep what it compiles, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

# Stamps: an extra is installed anew only when pyproject.toml changes.
.venv/bin/uv:
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --disable-pip-version-check "uv>=0.13,<1"

.venv/base: pyproject.toml | .venv/bin/uv
	$(INSTALL) --editable ".[charts,fast]" && touch $@

.venv/test: pyproject.toml | .venv/bin/uv
	$(INSTALL) --editable ".[hub,test]" && touch $@ .venv/base

.venv/ray: .venv/test
	$(INSTALL) --editable ".[ray]" && touch $@

# What reads traces. Harbor asks for Python 3.12 and 28 packages; its models of trajectories need pydantic alone. By pip, as uv
# never ignores which Python is asked for.
.venv/traces: .venv/test Makefile
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python harbor==0.26.0 teich==0.3.6 && touch $@

# Chromium, and axe-core (npm keeps it, we run it in the page). Where they cannot be installed, the tests that need them say so.
.venv/browser: Makefile | .venv/bin/uv
	@command -v chromedriver >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; } || \
	  echo "no Chromium: its tests are skipped (apt install chromium chromium-driver)"
	@mkdir -p .venv/axe && cd .venv/axe && npm pack --silent axe-core@$(AXE) >/dev/null && \
	  tar -xzf axe-core-$(AXE).tgz --strip-components=1 package/axe.min.js || \
	  echo "no axe-core: its tests are skipped (needs npm)"
	@! command -v chromedriver >/dev/null || [ ! -f .venv/axe/axe.min.js ] || touch $@

.venv/check: .venv/test
	$(INSTALL) --editable ".[check]" && touch $@

# npm writes this file itself, last.
node_modules/.package-lock.json: package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing (Node.js 20 or newer): it brings what checks the report's JavaScript" >&2; exit 1; }
	npm ci --silent --no-fund --no-audit && touch $@

# vLLM pins its own torch, and the trainer here another: neither may meet the package's environment.
.venv-vllm/done: pyproject.toml | .venv/bin/uv
	$(PYTHON) -m venv .venv-vllm
	$(INSTALL) ".[vllm]" && touch $@

.venv-train/done: pyproject.toml | .venv/bin/uv
	$(PYTHON) -m venv .venv-train
	$(INSTALL) --editable ".[test,train-test]" && touch $@

# The package of vLLM (0.3 GB), not installed: tests read in its source what its classes and its server take.
.venv-train/vllm: .venv-train/done
	@echo "downloading into .venv-train"; rm -f .venv-train/vllm-*.whl
	@.venv-train/bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	  --platform manylinux_2_28_x86_64 --dest .venv-train "$$(sed -n 's/^vllm = \["\(vllm[^"]*\)".*/\1/p' pyproject.toml)" && touch $@

# What plays a store: their pins exclude each other. verl needs a torch, here the ready wheel without CUDA; verifiers asks for
# an openai that is older than ours, which playing does not use.
PLAY_TEST := "pytest>=9,<10" "anyio>=4.10,<5" "hypothesis>=6.130,<7"

$(filter-out .venv-verifiers/done,$(PLAYERS:%=.venv-%/done)): .venv-%/done: pyproject.toml | .venv/bin/uv
	$(PYTHON) -m venv .venv-$*
	$(INSTALL) $(PLAY_TEST) $(if $(filter verl,$*),torch==2.13.0) \
	  --editable ".[$*]" && touch $@

.venv-verifiers/done: pyproject.toml | .venv/bin/uv
	$(PYTHON) -m venv .venv-verifiers && echo 'openai>=2.54,<3' >.venv-verifiers/older.txt
	$(INSTALL) --override .venv-verifiers/older.txt $(PLAY_TEST) "verifiers>=0.4,<0.5" --editable . && touch $@

# The site's generator needs nothing of the package.
.venv-docs/done: Makefile | .venv/bin/uv
	$(PYTHON) -m venv .venv-docs
	$(INSTALL) zensical==$(ZENSICAL) && touch $@

# The lowest versions, as constraints: an install fails where one package's floor asks for more than another's.
LOWEST = grep -oE '"[a-z0-9-]+(\[[a-z]+\])?>=[0-9.]+' pyproject.toml | sed -E 's/"([a-z0-9-]+).*>=/\1==/' | sort -u

.venv-lowest/done: pyproject.toml | .venv/bin/uv
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST) >.venv-lowest/lowest.txt
	$(INSTALL) --constraint .venv-lowest/lowest.txt --editable ".[hub,test]" && touch $@

# The extra `hub` wants a newer client than the trainer's lowest transformers takes.
.venv-train-lowest/done: pyproject.toml | .venv/bin/uv
	$(PYTHON) -m venv .venv-train-lowest
	$(LOWEST) | grep -v huggingface-hub >.venv-train-lowest/lowest.txt
	$(INSTALL) --constraint .venv-train-lowest/lowest.txt --editable ".[test,train-test]" && touch $@
