#!/usr/bin/env bash
# Questions about the emoji scenes, from the newest exports of demo_stage1 and demo_stage2_opt_instruct.
# Settings are passed on, also a recipe of the paper: experiment=vqa_opt_2.7b init_from=<stage-2 export> init_text_from=<stage-1 export> trainer=ddp
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
source "$ROOT/run_scripts/_train.sh" demo_vqa "$@"
