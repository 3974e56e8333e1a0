# Each target installs what it needs, in .venv. Tests and benchmarks may also need system packages,
# which apt-get installs. The machine must have Python 3.11 with venv, git and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS := 3
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
JARS = $(foreach need,$(filter zookeeper cassandra kafka,$(NEEDS)),.cache/$(need)/.fetched)

# Ray starts faster if Python may write compiled bytecode.
unexport PYTHONDONTWRITEBYTECODE

INSTALL := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
COMPILED := $(BIN)/python -c 'import sys; from kirana import native; sys.exit(not native.COMPILED)'

.DEFAULT_GOAL := help
.PHONY: help demo unit test chaos test-setup apt lint bench proto docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## Rank real films for real users (KEEP=1 stays up, PORT=8000)
	@$(BIN)/kirana demo --report demo-report.json $(if $(KEEP),--keep) $(if $(PORT),--port $(PORT))

unit: $(DEVELOPMENT) ## Run the unit tests: no servers, no system packages
	@$(BIN)/python -m pytest -n $(WORKERS) -m 'not redis and not serve and not zookeeper and not cassandra and not kafka' tests/unit

# The needs of the tests (the markers in docs/development.md) and of the benchmarks. OF_<need> lists
# the commands of a need, as command:package if the package has a different name.
NEEDS := compiled redis serve zookeeper cassandra kafka bench
OF_compiled := gcc
OF_redis := redis-server openssl
OF_serve := curl
OF_zookeeper := java:default-jre-headless mvn:maven
OF_cassandra := $(OF_zookeeper)
OF_kafka := $(OF_zookeeper)
OF_bench := wrk
VEGETA := $(BIN)/vegeta
HEADERS := $(PYTHON) -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))'

test: $(if $(TESTS),$(DEVELOPMENT),test-setup lint) ## Run lint, type checks and all tests (TESTS=tests/contract runs a part)
ifdef TESTS
	@needs="$$($(BIN)/python -m tests.needs $(TESTS))" && \
	  $(MAKE) --no-print-directory test-setup NEEDS="$$needs"
endif
	@$(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

test-setup: apt $(DEVELOPMENT) $(JARS) ## Install what the tests need
	@$(if $(filter compiled,$(NEEDS)),$(COMPILED) || $(INSTALL))

apt:
	@missing=; for entry in $(foreach need,$(NEEDS),$(OF_$(need))); do \
	  command -v $${entry%:*} >/dev/null || missing="$$missing $${entry#*:}"; \
	done; \
	$(if $(filter compiled,$(NEEDS)),$(HEADERS) || missing="$$missing python3-dev";) \
	test -z "$$missing" && exit; \
	test "$$(id -u)" = 0 || { echo "error: as root, run: apt-get install$$missing"; exit 1; }; \
	echo "installing$$missing"; \
	apt-get -qq update && apt-get -qq install -y $$missing >/dev/null

lint: $(DEVELOPMENT) ## Run Ruff, mypy in strict mode, and the import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy kirana bench docs examples
	@$(BIN)/lint-imports >.lint-imports 2>&1 || { cat .lint-imports; exit 1; }

chaos: ## Run faults on real servers, and check the laws (SEEDS=1-200)
	@$(MAKE) --no-print-directory test-setup NEEDS="compiled redis serve cassandra"
	@$(BIN)/python -u -m tests.chaos --seeds $(or $(SEEDS),1-3)

bench: test-setup $(if $(filter serve,$(NAME)),$(VEGETA)) ## Run a benchmark (NAME=features, JSON=out.json, AGAINST=COMMIT)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m bench $(or $(NAME),--list) $(if $(JSON),--json $(JSON)) $(if $(AGAINST),--against $(AGAINST))

$(VEGETA):
	@command -v go >/dev/null || { echo "error: bench serve needs Go: apt-get install golang-go"; exit 1; }
	@GOBIN="$(abspath $(BIN))" go install github.com/tsenart/vegeta/v12@v12.12.0

proto: $(DEVELOPMENT) ## Generate kirana/wire from proto/
	@$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --pyi_out=proto kirana/v1/messages.proto
	@mv proto/kirana/v1/messages_pb2.py proto/kirana/v1/messages_pb2.pyi kirana/wire/

docs: $(DEVELOPMENT) ## Generate docs/reference from the code
	@$(BIN)/python docs/generate.py

lock: $(DEVELOPMENT) ## Update the lock files
	@$(BIN)/uv pip compile -q --universal pyproject.toml --extra demo \
	  --generate-hashes --no-annotate --no-header -o requirements/runtime.lock
	@$(BIN)/uv pip compile -q --universal pyproject.toml --extra demo --group dev \
	  --generate-hashes --no-annotate --no-header -o requirements/development.lock

clean: ## Remove .venv, downloads, results, caches and compiled files
	@rm -rf $(VENV) .demo .cache .chaos demo-report.json .pytest_cache .mypy_cache .ruff_cache .hypothesis .lint-imports .import_linter_cache kirana/native/*.so

$(BIN)/uv: requirements/tools.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: Kirana needs Python 3.11, but $(PYTHON) is a different version: apt-get install python3.11, or make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: Python's venv is missing: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.lock
	@touch $@

$(RUNTIME): $(BIN)/uv requirements/runtime.lock pyproject.toml hatch_build.py $(wildcard kirana/native/*.p[yx][xd])
	@echo "installing Kirana"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r requirements/runtime.lock
	@$(INSTALL)
	@$(COMPILED) || \
	  echo "note: kirana.native could not be compiled, so reads are slower: apt-get install gcc python3-dev, then make clean"
	@touch $@

$(DEVELOPMENT): $(RUNTIME) requirements/development.lock
	@echo "installing development tools"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r requirements/development.lock
	@touch $@

.cache/%/.fetched: requirements/java/%/pom.xml | apt
	@echo "downloading the jars of $*"
	@rm -rf $(@D)
	@mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(@D)
	@touch $@
