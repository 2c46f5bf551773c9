#!/usr/bin/env bash
# datasets: a JPEG that was opened from memory is compressed again when it is stored, at a quality below its own.
#
# The guess: an Image column keeps what it is given: the bytes of a file where there is one, and the pixels, without
# loss, where there is none. `map` that passes an image through leaves it as it is.
# What happens: an image that Pillow opened from a path keeps its file. One that it opened from bytes (of a tar, a
# Parquet file, a download) still says that it is a JPEG, so it is compressed as a JPEG once more: less than a third of
# the bytes, other pixels, no message. After `convert` or `resize` it no longer says so, and is stored as PNG with every
# pixel kept. `map` that returns the image it was given compresses it too, at each `map` again. Image(decode=False)
# avoids that.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 400 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  datasets==5.0.0 pillow==13.0.0 pyarrow==26.0.1 numpy==2.4.6 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/store.py" <<'PYTHON'
import io
import sys
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset, Features
from PIL import Image

datasets.disable_progress_bars()
print(*(f"{name} {version(name)}" for name in ("datasets", "pillow")))
print("guess: every pixel stays as it is, in each of these cases")
row, column = np.mgrid[:240, :320]
waves = [128 + 60 * np.sin(column / 3 + row / 31), 128 + 60 * np.cos(column / 23), 128 + 60 * np.sin(row / 5)]
buffer = io.BytesIO()
Image.fromarray(np.stack(waves, -1).astype("uint8")).save(buffer, "JPEG", quality=95, subsampling="4:4:4")
jpeg, file = buffer.getvalue(), Path(sys.argv[1])
file.write_bytes(jpeg)
expected = np.asarray(Image.open(file)).astype(int)
features = Features({"image": datasets.Image(), "visited": datasets.Value("int64")})


def look(name, dataset):
    off = np.abs(np.asarray(dataset[0]["image"]).astype(int) - expected)
    stored = dataset[0]["image"].format
    print(f"seen: {name}: stored as {stored}, pixels off by up to {off.max()} levels, {off.mean():.1f} on average")
    return off.max()


def store(image):
    return Dataset.from_dict({"image": [image], "visited": [0]}, features=features)


from_path = look("opened from a path", store(Image.open(file)))
converted = look("opened from bytes, convert('RGB')", store(Image.open(io.BytesIO(jpeg)).convert("RGB")))
from_bytes = look("opened from bytes", store(Image.open(io.BytesIO(jpeg))))
dataset = store({"bytes": jpeg, "path": None})
maps = [look("given as bytes", dataset)]
for times in (1, 2, 3):
    dataset = dataset.map(lambda row: {"image": row["image"], "visited": row["visited"] + 1}, features=features)
    stored = dataset.cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"]
    maps.append(look(f"the same after {times} x map, {len(stored):,} of {len(jpeg):,} bytes", dataset))
as_found = from_path == converted == maps[0] == 0 and from_bytes > 8 and maps[1] > 8 and maps[3] >= maps[1]
sys.exit(0 if as_found else "datasets behaves in another way than this finding says")
PYTHON
export HF_HOME="$work/cache" HF_HUB_OFFLINE=1
"$work/venv/bin/python" "$work/store.py" "$work/image.jpg"
