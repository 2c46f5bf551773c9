#!/usr/bin/env bash
# Bad input and bad days with the real commands, a row each; ends with 1 if one does not hold. Part of them: only=<words> (--help shows it)
set -euo pipefail
EXTRA=dev
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
exec "$PYTHON" "$ROOT/tests/fault_test/command.py" "$@"
