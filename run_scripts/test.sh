#!/usr/bin/env bash
# Everything that is checked: ruff, mypy, pytest. Arguments go to pytest; the fast part: -m "not slow" tests/unit tests/parity
set -euo pipefail
EXTRA=dev
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
cd "$ROOT"
unset PYTHONDONTWRITEBYTECODE  # the tests start many interpreters, and each would compile the project
"$PYTHON" -m ruff check
"$PYTHON" -m ruff format --check
types=$(mktemp)
trap 'rm -f "$types"' EXIT
"$PYTHON" -m mypy >"$types" 2>&1 &  # beside the tests, as one core is enough for it; its output comes at the end
"$PYTHON" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@" && tests=0 || tests=$?  # whole files, in the order of tests/conftest.py
wait $! && mypy=0 || mypy=$?
cat "$types"; exit $((tests ? tests : mypy))
