#!/usr/bin/env bash
# A study of what matters in training, by its name (--help lists them); settings are passed on: itm seeds=0,1 jobs=2
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"  # on shared CPU cores, threads that spin while they wait cost most of the time
exec "$PYTHON" "$ROOT/scripts/study.py" "$@"
