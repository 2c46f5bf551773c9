#!/usr/bin/env bash
# Compares the fast paths with plain ones on the CPU, in 15 minutes on two cores; a missed target is no error. Settings: json=<file>
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
exec "$PYTHON" "$ROOT/scripts/benchmark.py" part=comparisons "$@"
