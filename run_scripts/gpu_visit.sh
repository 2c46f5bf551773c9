#!/usr/bin/env bash
# Nine minutes on a GPU: facts, attention kernels, tests, both stages, beam search, loader, towers; see docs/running-on-gpus.md.
# `pack` downloads small wheels for a machine without network; else device=cuda|cpu size=full|small parts=<a,b> out=<folder>.
# PYTHON=<interpreter> or the first with PyTorch: it need not have the whole project. An environment is made only if none has it.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for PYTHON in ${PYTHON:-"$ROOT/.venv/bin/python" python3 python}; do
  ! "$PYTHON" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' 2>/dev/null || exec "$PYTHON" "$ROOT/scripts/gpu_visit.py" "$@"
done
source "$ROOT/run_scripts/_environment.sh"
exec "$PYTHON" "$ROOT/scripts/gpu_visit.py" "$@"
