#!/usr/bin/env bash
# Kills a run again and again (SIGKILL) and shows that it ends as one that was never killed. Settings are passed on: kills=5 (--help shows them)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"  # on shared CPU cores, threads that spin while they wait cost most of the time
exec "$PYTHON" "$ROOT/scripts/kill_test.py" "$@"
