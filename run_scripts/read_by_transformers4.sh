#!/usr/bin/env bash
# Exports demo models (or the sources given: <export> …), reads them with transformers 4.57.6 and with this project's, and compares. --help shows more
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
exec "$PYTHON" "$ROOT/scripts/read_by_transformers4.py" "$@"
