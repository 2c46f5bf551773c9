#!/usr/bin/env bash
# torch: a query that may attend to no key gets NaN, zero or the mean of all values, and need_weights decides which.
#
# The guess: a softmax over nothing is NaN, whichever way attention is asked for (an empty caption, an image without
# patches); need_weights=True only returns the weights too, so that watching the attention changes no output.
# What happens: F.scaled_dot_product_attention gives zeros, for a boolean mask and for -inf. With the lowest finite
# number in place of -inf, as many models write masks, it gives the mean of all values, those of the padding too.
# nn.MultiheadAttention(need_weights=False) gives zeros (before its output projection) and gradients without NaN; the
# same call with need_weights=True, which is how attention maps are made, gives NaN, and NaN in the gradients of its
# weights.
# Needs Python 3.11 or newer and pip; no GPU; up to 6 GB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  torch==2.13.0 numpy==2.4.6 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/attend.py" <<'PYTHON'
import sys

import torch
import torch.nn.functional as F

print("torch", torch.__version__)
print("guess: NaN for the query that may attend to nothing; with and without need_weights the same")
torch.manual_seed(0)
query, key, value = torch.randn(1, 2, 8), torch.randn(1, 3, 8), torch.randn(1, 3, 8)
allowed = torch.tensor([[True, True, False], [False, False, False]])
found = {}


def look(name, row, weights=()):
    if row.isnan().all():
        found[name] = "NaN"
    elif not row.any():
        found[name] = "zeros"
    else:
        found[name] = "the mean of all values" if torch.allclose(row, value[0].mean(0), atol=1e-6) else "others"
    gradients = [weight.grad for weight in weights]
    bad = any(gradient.isnan().any() for gradient in gradients if gradient is not None)
    of_weights = f"; gradients of the weights {'with' if bad else 'without'} NaN" if weights else ""
    print(f"seen: {name}: {found[name]}{of_weights}")
    return bad


lowest = torch.finfo(torch.float32).min
for name, mask in (
    ("sdpa, boolean mask", allowed),
    ("sdpa, -inf", torch.zeros(2, 3).masked_fill(~allowed, -torch.inf)),
    ("sdpa, the lowest finite number", torch.zeros(2, 3).masked_fill(~allowed, lowest)),
):
    look(name, F.scaled_dot_product_attention(query, key, value, attn_mask=mask)[0, 1])
bad = {}
for need_weights in (False, True):
    module = torch.nn.MultiheadAttention(8, 2, batch_first=True)  # its biases are zeros, so zeros stay zeros
    output = module(query, key, value, attn_mask=~allowed, need_weights=need_weights)[0]
    output.sum().backward()
    weights = list(module.parameters())
    bad[need_weights] = look(f"MultiheadAttention, need_weights={need_weights}", output[0, 1].detach(), weights)
expected = ["zeros", "zeros", "the mean of all values", "zeros", "NaN"]
as_found = list(found.values()) == expected and bad == {False: False, True: True}
sys.exit(0 if as_found else "torch behaves in another way than this finding says")
PYTHON
"$work/venv/bin/python" "$work/attend.py"
