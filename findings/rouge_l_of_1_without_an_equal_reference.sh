#!/usr/bin/env bash
# ROUGE-L of the COCO caption tools: 1.0 for a caption that equals none of its references.
#
# The guess: with several references a caption gets the ROUGE-L of the best one, so that 1.0 means that it equals one,
# and the score says the same as Google's rouge-score (apart from how precision and recall are weighed).
# What happens: pycocoevalcap takes the highest precision of all references and the highest recall of all references,
# each from another one if need be, and makes the F-score of these two. "a dog" is contained in a long reference
# (precision 1) and contains a short one (recall 1): that is a perfect score, where the best single reference gives
# 0.71. A short and a long reference together therefore lift every model's score; rouge-score takes the best reference.
# Needs Python 3.11 or newer and pip; no GPU, no torch, no Java, about 100 MB in a temporary folder. Ends with 1 if that
# changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
  pycocoevalcap==1.2 numpy==2.4.6 \
  rouge-score==0.1.2 nltk==3.10.4 absl-py==2.5.1 six==1.17.0 regex==2026.11.19 click==8.5.1 joblib==1.6.0 tqdm==4.70.1 \
  defusedxml==0.7.1 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/score.py" <<'PYTHON'
from importlib.metadata import version

from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

print(*(f"{name} {version(name)}" for name in ("pycocoevalcap", "rouge-score")))
caption, long, short = "a dog", "a dog on the grass with a ball in its mouth", "a"
print("guess: both references together give the score of the better one")
for name, references in (("the long reference", [long]), ("the short reference", [short]), ("both", [long, short])):
    coco = Rouge().calc_score([caption], references)
    google = RougeScorer(["rougeL"]).score_multi(references, caption)["rougeL"].fmeasure
    print(f"seen: {name}: pycocoevalcap {coco:.3f}, rouge-score {google:.3f}")
PYTHON
"$work/venv/bin/python" "$work/score.py" | tee "$work/output"
diff "$work/output" - <<'EXPECTED' || { echo "the scores are others than this finding says" >&2; exit 1; }
pycocoevalcap 1.2 rouge-score 0.1.2
guess: both references together give the score of the better one
seen: the long reference: pycocoevalcap 0.274, rouge-score 0.308
seen: the short reference: pycocoevalcap 0.709, rouge-score 0.667
seen: both: pycocoevalcap 1.000, rouge-score 0.667
EXPECTED
