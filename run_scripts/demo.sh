#!/usr/bin/env bash
# The whole story on the embedded world, on a CPU in half an hour: stage 1, stage 2, three fine-tunings, every demo evaluation, one page.
set -euo pipefail
HERE="$(dirname "${BASH_SOURCE[0]}")"
for step in pretrain_stage1 pretrain_stage2 finetune_caption finetune_vqa finetune_retrieval; do
  echo "== $step"
  bash "$HERE/$step.sh" "$@"
done
echo "== evaluate"
TASKS=demo_caption,demo_nocaps,demo_vqa,demo_vqa_shuffled_pictures,demo_vqa_blank_questions,demo_retrieval
bash "$HERE/evaluate.sh" "evaluation=[$TASKS]" checkpoints.captioning=last:demo_caption_opt \
  checkpoints.vqa=last:demo_vqa checkpoints.retrieval=last:demo_retrieval "$@"
