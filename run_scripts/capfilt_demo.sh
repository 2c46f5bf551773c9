#!/usr/bin/env bash
# What CapFilt is worth, on the emoji scenes with the models of demo.sh: wrong captions go in, are filtered out, both sets train stage 1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"  # on shared CPU cores, threads that spin while they wait cost most of the time
exec "$PYTHON" "$ROOT/scripts/capfilt.py" demo "$@"
