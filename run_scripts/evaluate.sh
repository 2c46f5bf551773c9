#!/usr/bin/env bash
# Evaluation: evaluation=[coco_caption,nocaps] checkpoint=<export, Hugging Face folder or id, LAVIS file>; --list shows the tasks.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
exec "$PYTHON" "$ROOT/scripts/evaluate.py" "$@"
