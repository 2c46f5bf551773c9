#!/usr/bin/env bash
# PyAV: a usual JPEG comes out up to 117 levels from what Pillow gives, and no choice of interpolation changes that.
#
# The guess: FFmpeg decodes a JPEG as libjpeg does, but for a few levels, more at edges where the colours have half the
# size (4:2:0); there a better interpolation than the default one brings it close.
# What happens: with full colours (4:4:4) it is so. With halved ones, most JPEG files, the step to RGB repeats each
# colour sample for 2 x 2 pixels, where libjpeg interpolates; and what has one colour only comes out a level darker in
# all three channels. `interpolation` makes no difference at all: it is for sizes, and the size stays. Two steps do
# interpolate: to yuvj444p, where the colours change their size, and to rgb24 from there; bilinear is then within 3
# levels of Pillow, closer than bicubic. A model trained on images of one decoder and used on those of the other meets
# other colours.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 200 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  av==18.1.0 pillow==13.0.0 numpy==2.4.6 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/decode.py" <<'PYTHON'
import io
import sys
from importlib.metadata import version

import av
import numpy as np
from PIL import Image, ImageDraw

print(*(f"{name} {version(name)}" for name in ("av", "pillow")), "FFmpeg", av.ffmpeg_version_info)
print("guess: a few levels, more at edges of 4:2:0, less with a better interpolation")
random = np.random.default_rng(0)
discs = Image.new("RGB", (320, 240), (40, 90, 200))
for _ in range(40):
    x, y, radius = random.integers(0, 320), random.integers(0, 240), random.integers(5, 40)
    colour = tuple(int(level) for level in random.integers(0, 256, 3))
    ImageDraw.Draw(discs).ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
images = {"discs": discs, "one colour": Image.new("RGB", (320, 240), (200, 60, 40))}
found = {}
for name, image in images.items():
    for colours in ("4:4:4", "4:2:0"):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90, subsampling=colours)
        expected = np.asarray(Image.open(buffer)).astype(int)
        with av.open(io.BytesIO(buffer.getvalue())) as container:
            frame = next(container.decode(video=0))
        ways = {"default": frame.reformat(format="rgb24")}
        for how in ("POINT", "BILINEAR", "BICUBIC", "LANCZOS"):
            ways[how] = frame.reformat(format="rgb24", interpolation=how)
        for how in ("POINT", "BILINEAR", "BICUBIC"):
            full = frame.reformat(format="yuvj444p", interpolation=how)
            ways[f"{how} to yuvj444p, then rgb24"] = full.reformat(format="rgb24")
        for way, result in ways.items():
            off = result.to_ndarray().astype(int) - expected
            found[name, colours, way] = np.abs(off).max()
            print(f"seen: {name}, {colours}, {way}: up to {np.abs(off).max()} levels off, {off.mean():+.2f} on average")
direct = {found["discs", "4:2:0", way] for way in ("default", "POINT", "BILINEAR", "BICUBIC", "LANCZOS")}
as_found = (
    len(direct) == 1 and min(direct) > 60 and found["discs", "4:4:4", "default"] <= 4
    and found["discs", "4:2:0", "BILINEAR to yuvj444p, then rgb24"] <= 4
)
sys.exit(0 if as_found else "PyAV behaves in another way than this finding says")
PYTHON
"$work/venv/bin/python" "$work/decode.py"
