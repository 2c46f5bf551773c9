#!/usr/bin/env bash
# Tries the lowest and the newest versions that pyproject.toml admits, on each Python; once per release. Options are passed on (--help shows them)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
exec "$PYTHON" "$ROOT/scripts/versions.py" "$@"
