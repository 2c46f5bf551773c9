#!/usr/bin/env bash
# faiss: the exact index tells near-duplicates apart for 100 queries at once, and no longer for 500.
#
# The guess: IndexFlatL2 compares with every stored vector, so it is exact but for the last digit of the distance; how
# many queries are handed over in one call is a matter of speed.
# What happens: from a number of queries on that depends on their width (`distance_compute_blas_threshold`), the
# distance is no longer the sum of squared differences but |x|^2 + |y|^2 - 2xy in float32. Where all features have an
# offset in common, the squared lengths are ten thousands, and their rounding exceeds the distance of near-duplicates: a
# fifth of the vectors is then not its own nearest neighbour, and distances of duplicates are anything from 0 to seven
# times the true one. Who looks for duplicates in large calls finds others than in small ones. Taking the mean off
# first, or a higher threshold, helps.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 150 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile faiss-cpu==1.15.1 numpy==2.4.6 \
  >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/search.py" <<'PYTHON'
import sys

import faiss
import numpy as np

print("faiss", faiss.__version__, "numpy", np.__version__)
print("guess: each vector is its own nearest neighbour, and its duplicate the second, however large the call")
random = np.random.default_rng(0)
scenes = random.standard_normal((2000, 512)) + 8
features = np.concatenate([scenes, scenes + 0.003 * random.standard_normal(scenes.shape)]).astype("float32")
rows = np.arange(500)


def right(vectors, size):
    index = faiss.IndexFlatL2(512)
    index.add(vectors)
    found = [index.search(vectors[start : start + size], 2) for start in range(0, 500, size)]
    distances, neighbours = (np.concatenate(part) for part in zip(*found))
    own = (neighbours[:, 0] == rows).mean()
    nearest, furthest = distances[:, 1].min(), distances[:, 1].max()
    print(f"seen: {own:4.0%} of 500 are their own nearest neighbour; second ones are {nearest:.4f} to {furthest:.4f} away")
    return own


exact = ((features[:500].astype("float64") - features[2000:2500]) ** 2).sum(1)
print(f"true distances of the duplicates: {exact.min():.4f} to {exact.max():.4f}; all others are further than 500")
print("100 queries in a call:")
few = right(features, 100)
print("500 queries in a call:")
many = right(features, 500)
print("500 queries in a call, the mean taken off before:")
centred = right((features - features.mean(0)).astype("float32"), 500)
print("500 queries in a call, distance_compute_blas_threshold = 1,000,000,000:")
faiss.cvar.distance_compute_blas_threshold = 1_000_000_000
raised = right(features, 500)
as_found = few == raised == 1 and many < 0.95 and centred > many
sys.exit(0 if as_found else "faiss behaves in another way than this finding says")
PYTHON
"$work/venv/bin/python" "$work/search.py"
