#!/usr/bin/env bash
# Retrieval on the emoji scenes, from the newest stage-1 export (bash run_scripts/pretrain_stage1.sh makes one).
# Settings are passed on, also a recipe of the paper: experiment=retrieval_coco_vit_g init_from=<stage-1 export> trainer=ddp
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
source "$ROOT/run_scripts/_train.sh" demo_retrieval "$@"
