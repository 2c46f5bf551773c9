#!/usr/bin/env bash
# torch: antialias=True changes bicubic enlargements too, where there is nothing to antialias: a grid of positions by 8 %.
#
# The guess: antialias=True of F.interpolate widens the filter where an image gets smaller. Where it gets larger
# (position embeddings of 16 x 16 patches for 26 x 26, as in BLIP-2's fine-tuning at 364 pixels) it makes no difference,
# as with bilinear.
# What happens: bicubic takes another filter with it: Keys' with a = -0.5, which is Pillow's, in place of a = -0.75. The
# same position embeddings, enlarged with it and without it, differ by 8 % (a random grid), and so do two code bases
# that differ in that argument only. Pillow's bicubic is the one with antialias=True, to the last digits of float32.
# Needs Python 3.11 or newer and pip; no GPU; up to 6 GB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  torch==2.13.0 pillow==13.0.0 numpy==2.4.6 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/enlarge.py" <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

print(*(f"{name} {version(name)}" for name in ("torch", "pillow")))
print("guess: an enlargement from 16 x 16 to 26 x 26 is the same with antialias=True and without, by either filter")
grid = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
pillow = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
off = {}
for mode, resample in pillow.items():
    plain, smooth = (
        F.interpolate(grid, size=(26, 26), mode=mode, align_corners=False, antialias=antialias)[0, 0]
        for antialias in (False, True)
    )
    by_pillow = torch.from_numpy(np.array(Image.fromarray(grid[0, 0].numpy()).resize((26, 26), resample)))
    pairs = (smooth, plain), (smooth, by_pillow), (plain, by_pillow)
    off[mode] = [((one - other).norm() / other.norm()).item() for one, other in pairs]
    print(
        f"seen: {mode}: with antialias and without differ by {off[mode][0]:.1%}, "
        f"with it and Pillow by {off[mode][1]:.1%}, without it and Pillow by {off[mode][2]:.1%}"
    )
impulse = torch.zeros(1, 1, 16, 16)
impulse[..., 8] = 1
for antialias in (False, True):
    wide = F.interpolate(impulse, size=(16, 32), mode="bicubic", align_corners=False, antialias=antialias)[0, 0, 0]
    weights = [round(weight, 4) for weight in wide[13:17].tolist()]
    print(f"seen: weights of the filter at twice the width, antialias={antialias}: {weights}")
as_found = max(off["bilinear"]) < 1e-4 and off["bicubic"][1] < 1e-4 and min(off["bicubic"][0], off["bicubic"][2]) > 0.03
sys.exit(0 if as_found else "torch behaves in another way than this finding says")
PYTHON
"$work/venv/bin/python" "$work/enlarge.py"
