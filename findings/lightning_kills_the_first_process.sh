#!/usr/bin/env bash
# A process of Lightning's ddp that ends with a status other than 0 has the first process killed, `finally` and all.
#
# The guess: where one of two processes that Lightning started ends with a status of its own (130 after Ctrl-C, say), the
# first one gets an error that it can catch, or waits for the other; its `finally` blocks run in any case.
# What happens: a thread of the first process looks at the others every 5 seconds, and sends the first process SIGKILL
# when one has ended with anything but 0. What it was writing is cut, no `finally` and no handler runs, and its own exit
# status is 137. With status 0 nothing of this happens. A process that stops early and in order therefore has to end
# with 0 unless it is the first. Under torchrun, which starts the processes itself, there is no such thread.
# Needs Python 3.11 or newer, pip, Linux; no GPU; about 6 GB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 lightning==2.6.6 2>/dev/null
"$work/venv/bin/python" -c 'import lightning, torch; print("lightning", lightning.__version__, "torch", torch.__version__)'

cat >"$work/run.py" <<'PYTHON'
import os
import sys
import time

import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader


class EndsEarly(pl.Callback):
    def on_train_start(self, trainer, module):
        if trainer.global_rank:
            os._exit(int(os.environ["STATUS"]))
        try:
            print("first: begins to write", flush=True)
            time.sleep(15)
            print("first: has written", flush=True)
        finally:
            print("first: finally", flush=True)
        sys.exit(0)


pl.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_steps=1, logger=False, callbacks=[EndsEarly()],
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
).fit(BoringModel(), DataLoader(RandomDataset(32, 8)))
PYTHON
changed=0
for status in 0 130; do
  printed=$(STATUS=$status "$work/venv/bin/python" "$work/run.py" 2>&1) && first=0 || first=$?
  echo "the other process ends with $status: the first one with $first"
  grep -E "^first|terminated with code" <<<"$printed"
  if [ "$status" = 0 ]; then
    [ "$first" = 0 ] && grep -q "^first: finally" <<<"$printed" || changed=1
  else
    [ "$first" = 137 ] && ! grep -q "^first: finally" <<<"$printed" || changed=1
  fi
done
exit "$changed"
