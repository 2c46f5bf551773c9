#!/usr/bin/env bash
# peft: LoRA on a plain nn.Linear raises ImportError where a newer torchao is installed, though nothing is quantized.
#
# The guess: peft looks at torchao for layers that torchao quantized; for a plain layer it does not matter which torchao is
# installed, and if two versions did not fit, pip would say so.
# What happens: for each target layer peft 0.18.1 asks one kind of layer after the other, and the one for torchao imports a class
# as soon as the package is there. torchao 0.18 has no such class any more, so that every LoRA ends in an ImportError
# that names a quantized tensor. `pip check` finds nothing wrong. Without torchao the same lines work.
# Needs Python 3.11 or newer and pip; no GPU; up to 6 GB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  torch==2.13.0 peft==0.18.1 torchao==0.18.0 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/adapt.py" <<'PYTHON'
from importlib.metadata import distributions

import torch
from peft import LoraConfig, get_peft_model

versions = {found.metadata["Name"]: found.version for found in distributions()}
print(*(f"{name} {versions.get(name, 'not installed')}" for name in ("torch", "peft", "torchao")))
try:
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), LoraConfig(target_modules=["0"], r=2))
    print("seen: a plain layer with LoRA:", sum(p.numel() for p in model.parameters() if p.requires_grad), "trained weights")
except ImportError as error:
    print(f"seen: {type(error).__name__}: {str(error).split(' (')[0]}")
PYTHON
{
  echo "guess: a plain layer with LoRA has 32 trained weights, in both cases"
  "$work/venv/bin/python" -m pip check --disable-pip-version-check
  "$work/venv/bin/python" "$work/adapt.py" 2>/dev/null
  "$work/venv/bin/python" -m pip uninstall --quiet --yes torchao 2>/dev/null
  "$work/venv/bin/python" "$work/adapt.py" 2>/dev/null
} | tee "$work/output"
sed -i 's/+cpu//' "$work/output"
diff "$work/output" - <<'EXPECTED' || { echo "peft behaves in another way than this finding says" >&2; exit 1; }
guess: a plain layer with LoRA has 32 trained weights, in both cases
No broken requirements found.
torch 2.13.0 peft 0.18.1 torchao 0.18.0
seen: ImportError: cannot import name 'LinearActivationQuantizedTensor' from 'torchao.quantization'
torch 2.13.0 peft 0.18.1 torchao not installed
seen: a plain layer with LoRA: 32 trained weights
EXPECTED
