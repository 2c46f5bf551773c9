#!/usr/bin/env bash
# The whole demo on the emoji scenes, some half an hour on a CPU: stage 1, stage 2, three fine-tunings, every demo evaluation, one page.
# Settings are passed to every step: paths.output_dir=<folder>
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
case " $* " in *" --help "* | *" -h "*) sed -n '2,3s/^# //p' "$0"; exit 0 ;; esac
run() { echo "== $1"; bash "$ROOT/run_scripts/$1.sh" "${@:2}"; }
run pretrain_stage1 "$@"
run pretrain_stage2 experiment=demo_stage2_opt_instruct "$@"
for step in finetune_caption finetune_vqa finetune_retrieval; do run "$step" "$@"; done
TASKS=demo_caption,demo_nocaps,demo_vqa,demo_vqa_shuffled_pictures,demo_vqa_blank_questions,demo_retrieval
run evaluate "evaluation=[$TASKS]" checkpoints.captioning=last:demo_caption_opt \
  checkpoints.vqa=last:demo_vqa checkpoints.retrieval=last:demo_retrieval "$@"
echo "all of it in $((SECONDS / 60)) min $((SECONDS % 60)) s"
