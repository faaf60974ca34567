# The commands of a clone. `make setup` is implied by the others and takes seconds when there is nothing to do.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:
MAKEFLAGS += --no-print-directory

VENV ?= .venv
PYTHON ?= python3
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)
NATIVE := $(shell find engine/native -name '*.cpp' -o -name '*.h' -o -name 'CMakeLists.txt') CMakeLists.txt
NATIVE_TESTS := tests/unit/codec tests/unit/trees/test_tree_kernel.py tests/unit/explain/test_tree_shap.py
CXX_FILES = $(shell git ls-files 'engine/native/*.cpp' 'engine/native/*.h' 'engine/native/*.cu' 'tests/**/*.cpp' 'tests/**/*.h')
# One OpenMP thread: the boosters of several libraries in one process would fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --junit-xml=reports/junit.xml
# Half of the tests wait for a broker and half compute: two processes fill two cores. A file stays in one of them, with its brokers.
JOBS ?= 2
PARALLEL = -n $(JOBS) --dist loadfile

.PHONY: help setup demo test test-fast test-beside test-ansible test-readers test-pages test-alerts test-cluster soak sanitize coverage check format bench docs site lock wheel image image-twice image-base sbom licences advisories clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.native ## .venv with everything, the native code, Kafka's jars
	@$(BIN)/python -m compileall -q engine connectors schemas
	@$(BIN)/python -P -m penstock.connectors.embedded.kafka --fetch || [[ "$(ARGS)" == *"--broker memory"* ]]

demo: setup ## everything on one machine: real flights, predicted and explained as they take off
	@$(BIN)/penstock demo $(ARGS)

test: setup ## every test, against a real Apache Kafka; JOBS=0 for one process, whose output can be followed
	@mkdir -p reports
	$(PYTEST) $(PARALLEL) $(ARGS)

test-beside: wheel ## installs and imports beside Flink, Beam, Spark, KServe, Triton's client, TensorFlow and MLflow; before a release
	@bundle=$$(mktemp -d)
	@$(BIN)/python -P -c "import sys; sys.path.insert(0, '.'); from pathlib import Path; from tests.bundles import write_stump; write_stump(Path('$$bundle/stump'))"
	@$(BIN)/python -P tests/beside/run.py "$$(ls -t dist/*.whl | head -1)" "$$bundle/stump" --report docs/figures/beside.md $(ARGS)

test-ansible: wheel ## the Ansible role: linted, and run twice on a root folder with this wheel, where the second run may change nothing; before a release
	@mkdir -p reports
	@[[ -x build/ansible/bin/ansible-lint ]] || { uv venv --quiet --clear build/ansible && uv pip install --quiet --python build/ansible/bin/python "ansible-core==2.19.14" "ansible-lint==26.10.1"; }
	PENSTOCK_ANSIBLE=build/ansible/bin PENSTOCK_WHEEL=$$(ls -t dist/*.whl | head -1) $(PYTEST) tests/unit/deploy/test_ansible.py --junit-xml=reports/ansible.xml --timeout 900 $(ARGS)

test-readers: setup ## services in Go and TypeScript, DuckDB, Spark, Flink SQL and OpenSearch read what a worker writes, value by value; before a release
	@PYTHONPATH=. $(BIN)/python -m tests.readers.run --report docs/figures/readers.md $(ARGS)

test-pages: setup ## the pages in a browser (needs Debian's chromium, chromium-driver and fonts-noto-cjk): rules, keyboard, both languages, axe-core; with PICTURES=1 the pictures of docs/pages.md
	@mkdir -p reports
	@$(BIN)/uv pip install --quiet --python $(BIN)/python "playwright==1.65.2" "axe-playwright-python==0.1.8" "selenium>=4.20,<5"
	export PENSTOCK_BROWSER=1$(if $(PICTURES), PENSTOCK_PICTURES=1)
	# Half of it waits; what measures how fast a page is comes after it, alone.
	$(PYTEST) $(PARALLEL) tests/pages/test_browser.py tests/pages/test_browser_model.py tests/pages/test_browser_chinese.py tests/pages/test_selenium.py --junit-xml=reports/pages.xml --timeout 120 $(ARGS)
	$(PYTEST) tests/pages/test_browser_pace.py --junit-xml=reports/pages-pace.xml --timeout 120 $(ARGS)

test-alerts: setup ## every alert from its fault to a receiver, and the dashboards by their types and data: a real Prometheus and a real Alertmanager (Debian's packages; the latter also built by Go), Grafana's SDK; minutes
	@mkdir -p reports
	@$(BIN)/python -m tests.unit.rules.alertmanager
	@$(BIN)/uv pip install --quiet --python $(BIN)/python "grafana-foundation-sdk==1769699998!10.1.0"
	PENSTOCK_ALERTS=1 $(PYTEST) tests/unit/rules/test_rules_in_prometheus.py tests/unit/rules/test_dashboards_typed.py --junit-xml=reports/alerts.xml $(ARGS)

test-cluster: setup ## the chart, the scaler and KEDA on a real API server, built with Go (20 minutes, once) into ~/.cache/penstock; writes docs/figures/cluster.md; before a release
	@mkdir -p reports
	@programs=$$(PYTHONPATH=. $(BIN)/python -m tests.cluster.built)
	PATH="$$programs:$$PATH" PENSTOCK_CLUSTER=1 $(if $(ARGS),,PENSTOCK_CLUSTER_REPORT=docs/figures/cluster.md) $(PYTEST) --junit-xml=reports/cluster.xml \
		$(or $(ARGS),-n 3 --dist loadgroup tests/cluster tests/unit/deploy/test_chart_values.py)

test-fast: setup ## the tests that need no broker and no minutes
	@mkdir -p reports
	$(PYTEST) $(PARALLEL) -m "not kafka and not slow" $(ARGS)

coverage: setup ## the tests that need no broker, with the lines that they reach; fails below the floor in pyproject.toml
	@mkdir -p reports
	$(PYTEST) -m "not kafka and not slow" --cov --cov-report=term:skip-covered --cov-report=html:reports/coverage $(ARGS)

soak: setup ## the long runs (faults, error codes, seeds, mutants, kills, drains), cut to SOAK hours of the 40 that all of it takes; writes docs/figures/soak.md
	@$(BIN)/python -m tests.soak.run $(if $(SOAK),--hours $(SOAK)) $(ARGS)

sanitize: $(VENV)/.native ## the tests of the native code under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake -S . -B build/sanitize -G Ninja -DPython_EXECUTABLE=$(BIN)/python -DPENSTOCK_SANITIZE=ON \
		-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(abspath build/sanitize/modules) >/dev/null
	@cmake --build build/sanitize -- --quiet
	@mkdir -p reports
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so.6)" \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
		PYTHONPATH=. PENSTOCK_NATIVE_MODULES=$(abspath build/sanitize/modules) PENSTOCK_MUTANTS=$${PENSTOCK_MUTANTS:-5000} \
		$(BIN)/python -P -m pytest -p tests.sanitized_modules --junit-xml=reports/sanitize.xml -q --timeout 600 -m "not kafka and not slow" $(or $(ARGS),$(NATIVE_TESTS))

check: $(VENV)/.native ## format, lint, types, import contracts
	ruff format --check .
	ruff check .
	clang-format --dry-run -Werror $(CXX_FILES)
	if [[ "$$(python -c 'import sys; print(*sys.version_info[:2], sep=".")')" == 3.11 ]]; then mypy
	else echo "types are checked with Python 3.11 alone, the oldest that is promised: newer ones have stubs of numpy that it cannot read" >&2; fi
	PYTHONPATH=benchmarks lint-imports

format: $(VENV)/.native ## rewrite the code as the formatter wants it
	ruff format .
	ruff check --fix .
	clang-format -i $(CXX_FILES)

bench: setup ## the figures of the README, measured here; tables and pictures under docs/figures/
	@mkdir -p docs/figures
	@$(BIN)/penstock bench codec
	@$(BIN)/penstock bench explain --models 100x6,500x6,100x8 --batches 1,16,256,1024 --picture docs/figures/explain.svg --table docs/figures/explain.md
	@$(BIN)/penstock bench predict
	@$(BIN)/penstock bench pipeline
	@$(BIN)/penstock bench peers --picture docs/figures/peers.svg

docs: $(VENV)/.native ## regenerate the references under docs/, and build the site into build/site
	@$(BIN)/python -P docs/build_reference.py docs
	@$(BIN)/python -P docs/build_chart.py
	@$(BIN)/python -m tests.model_families docs/models.md
	@$(MAKE) site

site: $(VENV)/.native ## the documentation as a site, every link checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lock: $(VENV)/.native ## requirements.txt anew from pyproject.toml, with hashes and without addresses; pins that still fit stay
	@uv pip compile pyproject.toml --quiet --extra gpu --extra scaler --extra sign --extra manifest --extra admin --extra traces --extra package --extra catboost --extra score --extra demo --extra faust --extra tensorboard --group dev --universal \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --override requirements.overrides.txt -o requirements.txt
	@for kind in cpu gpu; do
		uv pip compile pyproject.toml $$([[ $$kind = cpu ]] || echo deploy/requirements-gpu.in) --quiet --extra gpu --extra scaler --extra sign --extra admin --extra traces \
			--universal --python-version 3.11 --constraint requirements.txt --generate-hashes --no-header --no-annotate --no-emit-index-url -o deploy/requirements-$$kind.txt
	done

wheel: $(VENV)/.native ## one wheel into dist/
	@uv build --wheel --no-build-isolation --out-dir dist

image: ## the image penstock:cpu (KIND=gpu: penstock:gpu), from digests and hashes, with the times of the commit; needs Docker with buildx
	@bash deploy/image.sh build $(or $(KIND),cpu)

image-twice: ## build it twice from nothing and compare: fails unless both are the same to the byte
	@bash deploy/image.sh twice $(or $(KIND),cpu)

image-base: ## the newest base of the image, by its digest, into deploy/Dockerfile
	@bash deploy/image.sh base

sbom: $(VENV)/.native ## build/sbom.json: every package of .venv and every shared library inside it, in CycloneDX
	@$(BIN)/python -P deploy/sbom.py build/sbom.json

licences: $(VENV)/.native ## every package's licence is in deploy/licences.txt
	@$(BIN)/python -P deploy/sbom.py build/sbom.json --licences deploy/licences.txt

advisories: $(VENV)/.packages ## no pin of requirements.txt has a known weakness, but those in deploy/advisories.txt; needs the network
	@$(BIN)/uvx --quiet pip-audit@2.10.1 --requirement requirements.txt --no-deps --disable-pip --progress-spinner off \
		$$(sed -n 's/^\([A-Z][A-Za-z0-9-]*\).*/--ignore-vuln \1/p' deploy/advisories.txt)

clean: ## remove what was built; the jars' cache stays
	rm -rf $(VENV) build dist reports engine/native/*.so

$(VENV)/.tools:
	@command -v $(PYTHON) >/dev/null || { echo "penstock needs Python 3.11 or newer: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "penstock needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version); name another with make PYTHON=python3.12" >&2; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || { echo "penstock needs a C++20 compiler: apt-get install g++" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python cannot make environments here: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.packages: requirements.txt pyproject.toml | $(VENV)/.tools
	@echo "installing the packages of requirements.txt into $(VENV) ..."
	@awk '/^uv==/ {on = 1; print; next} on && /^ / {print; next} {on = 0}' requirements.txt > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --no-deps -r requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -C wheel.cmake=false -e .
	@touch $@

$(VENV)/.native: $(VENV)/.packages $(NATIVE)
	@echo "building the native code ..."
	@cmake -S . -B build/native -G Ninja -DPython_EXECUTABLE=$(BIN)/python >/dev/null
	@cmake --build build/native -- --quiet
	@touch $@
