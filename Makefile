.PHONY: check docs docs-check format minimum slow test

check:
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	@# Not quietly: mkdocs then drops the warnings that --strict counts.
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict -d "$$(mktemp -d)"

docs:
	mkdocs serve

# Every command of the pages, run where nothing has to be fetched: about ten minutes.
docs-check:
	python -m docs.check

format:
	ruff format .
	ruff check --fix .

test:
	pytest

# What takes minutes: each has a short form in the suite.
slow:
	pytest -m slow

# The suite with the oldest versions that pyproject.toml allows, in an environment of its
# own; needs uv (pip install uv). What old packages warn of is not an error there.
minimum:
	uv venv --clear .venv-minimum
	uv pip install --python .venv-minimum --resolution lowest-direct \
		--only-binary :all: --no-binary lava-depth -e ".[test]"
	.venv-minimum/bin/python -m pytest -o filterwarnings=default
