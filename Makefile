# One environment serves `make demo` and `make test`: torch alone unpacks to 5.5 GB. DEVICEOPS_VENV names one that exists.
VENV ?= $(or $(DEVICEOPS_VENV),.venv)
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.deviceops-installed

# Programs that tests and tools look for (protoc plugins, buf, the C# kit where it lies beside the checkout).
export PATH := $(abspath $(BIN)):$(PATH)
DOTNET := if [ -x ../shared/dotnet/install ]; then eval "$$(../shared/dotnet/install)"; fi

# A shell that sets it has each of the hundreds of processes that tests start compile this repository again: 0.2 to 1 s each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check generate bench mutants

demo: $(READY)
	$(BIN)/deviceops demo --out out/demo

test: $(READY)
	$(DOTNET); $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not gpu'; status=$$?; \
	command -v dotnet > /dev/null || echo "The C# suite (tests/csharp) was skipped: there is no .NET SDK."; exit $$status

# Two at a time: each of them uses one core.
check: $(READY)
	$(MAKE) --no-print-directory -j 2 -O check-linux check-windows check-rest check-generated

.PHONY: check-linux check-windows check-rest check-generated

check-linux:
	$(BIN)/pyright

check-windows:
	$(BIN)/pyright --pythonplatform Windows domains server

check-rest:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python protos/breaking.py

check-generated:
	$(DOTNET); $(BIN)/python protos/generate.py --check

generate: $(READY)
	$(DOTNET); $(BIN)/python protos/generate.py

bench: $(READY)
	$(BIN)/python -m bench

# make mutants DIR=domains/memory COUNT=40 SEED=1 THEN=tests/server: the share of random faults that tests notice; not in CI.
mutants: $(READY)
	$(BIN)/python -m tools.mutants $(DIR) --count $(or $(COUNT),40) --seed $(or $(SEED),1) $(if $(THEN),--then $(THEN))

# Installs on first use, and again when what is to be installed has changed.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
