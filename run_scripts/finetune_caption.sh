#!/usr/bin/env bash
# Captions on the emoji scenes, from the newest export of demo_stage2_opt_instruct (pretrain_stage2.sh makes one).
# Settings are passed on, also a recipe of the paper: experiment=caption_coco_opt_2.7b init_from=<stage-2 export> trainer=ddp
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
source "$ROOT/run_scripts/_train.sh" demo_caption_opt "$@"
