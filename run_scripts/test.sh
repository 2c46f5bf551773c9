#!/usr/bin/env bash
# Everything that is checked: ruff, mypy, pytest. Arguments are passed on to pytest: tests/unit -k schedule
set -euo pipefail
EXTRA=dev
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
cd "$ROOT"
unset PYTHONDONTWRITEBYTECODE  # the tests start many interpreters, and each would compile the project
"$PYTHON" -m ruff check
"$PYTHON" -m ruff format --check
"$PYTHON" -m mypy
"$PYTHON" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"  # whole files, in the order of tests/conftest.py
