#!/usr/bin/env bash
# Reads 20,000 files that are wrong in many ways; ends with 1 if one is neither read nor refused in one line. Settings: seed=1 (--help shows them)
set -euo pipefail
EXTRA=dev
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
exec "$PYTHON" "$ROOT/tests/fuzz/command.py" "$@"
