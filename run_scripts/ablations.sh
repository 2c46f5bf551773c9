#!/usr/bin/env bash
# The paper's ablations in miniature: stage 1 without ITG, stage 2 without stage 1. Settings are passed on: seeds=0,1 (--help shows them)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"  # on shared CPU cores, threads that spin while they wait cost most of the time
exec "$PYTHON" "$ROOT/scripts/ablate.py" "$@"
