#!/usr/bin/env bash
# The web app: caption, ask, match, search, compare, and look at data in a browser; --model names a model, --help lists all options.
set -euo pipefail
EXTRA=app
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
exec "$PYTHON" "$ROOT/scripts/app.py" "$@"
