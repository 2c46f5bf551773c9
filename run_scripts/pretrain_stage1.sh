#!/usr/bin/env bash
# Stage 1 on the embedded world. Settings are passed on, also another recipe: experiment=stage1_vit_g trainer=ddp
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"  # on shared CPU cores, threads that spin while they wait cost most of the time
exec "$PYTHON" "$ROOT/scripts/train.py" experiment=demo_stage1 "$@"
