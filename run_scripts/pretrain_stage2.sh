#!/usr/bin/env bash
# Stage 2 on the emoji scenes, from the newest stage-1 export. Settings are passed on: experiment=demo_stage2_t5, init_from=<export> …
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
source "$ROOT/run_scripts/_train.sh" demo_stage2_opt "$@"
