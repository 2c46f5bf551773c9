#!/usr/bin/env bash
# JPEG XL: a JPEG packed without loss gives the file back to the byte, but other pixels, up to 80 levels away.
#
# The guess: to pack the JPEG files of a data set losslessly as JPEG XL (a sixth to two fifths smaller) changes nothing
# for a model; the decoders of JPEG differ by a level or two.
# What happens: only the way back to the .jpg is lossless. A decoder of JPEG XL makes pixels from the same coefficients
# by arithmetic of its own: half of all values differ from those of libjpeg, by a few levels in soft images and by
# dozens at hard edges of strong colours, the more the stronger the compression. A frozen tower then gives other
# features than for the .jpg. One of two Python packages for libjxl (pillow-jxl-plugin) agrees with the .jpg all the
# same: it makes the JPEG again and decodes that. So the two do not agree with each other.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 250 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  imagecodecs==2026.3.6 pillow==13.0.0 pillow-jxl-plugin==1.3.8 numpy==2.4.6 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/pack.py" <<'PYTHON'
import io
import sys
from importlib.metadata import version

import imagecodecs
import numpy as np
import pillow_jxl  # noqa: F401  (lets Pillow open JPEG XL)
from PIL import Image, ImageDraw

print(*(f"{name} {version(name)}" for name in ("imagecodecs", "pillow", "pillow-jxl-plugin")), imagecodecs.jpegxl_version())
print("guess: the same pixels, but for a level or two")
random = np.random.default_rng(0)
discs = Image.new("RGB", (320, 240), (40, 90, 200))
for _ in range(40):
    x, y, radius = random.integers(0, 320), random.integers(0, 240), random.integers(5, 40)
    colour = tuple(int(level) for level in random.integers(0, 256, 3))
    ImageDraw.Draw(discs).ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
row, column = np.mgrid[:240, :320]
waves = [128 + 60 * np.sin(column / 17 + row / 31), 128 + 60 * np.cos(column / 23), 128 + 60 * np.sin(row / 19)]
soft = Image.fromarray(np.stack(waves, -1).astype("uint8"))


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


largest = {}
same = True
for name, image in (("discs", discs), ("soft", soft)):
    for quality in (75, 95):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
        jpeg = buffer.getvalue()
        packed = imagecodecs.jpegxl_encode_jpeg(jpeg, usecontainer=True)
        expected = pixels(Image.open(io.BytesIO(jpeg)))
        off = np.abs(imagecodecs.jpegxl_decode(packed).astype(int) - expected)
        by_pillow = np.abs(pixels(Image.open(io.BytesIO(packed))) - expected).max()
        back = imagecodecs.jpegxl_decode_jpeg(packed) == jpeg
        largest[name, quality] = off.max()
        same = same and back and by_pillow == 0
        print(
            f"seen: {name}, quality {quality}: {len(packed) / len(jpeg):.0%} of the size, the file comes back equal: {back}; "
            f"by imagecodecs {(off > 0).mean():.0%} of the pixels' values differ, by up to {off.max()} levels, "
            f"by pillow-jxl-plugin by up to {by_pillow}"
        )
as_found = same and largest["discs", 75] > 40 and largest["soft", 95] >= 2
sys.exit(0 if as_found else "the packages behave in another way than this finding says")
PYTHON
"$work/venv/bin/python" "$work/pack.py"
