#!/usr/bin/env bash
# Stage 1 on the emoji scenes. Settings are passed on, also another recipe: experiment=stage1_vit_g trainer=ddp
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
source "$ROOT/run_scripts/_train.sh" demo_stage1 "$@"
