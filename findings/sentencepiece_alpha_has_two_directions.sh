#!/usr/bin/env bash
# sentencepiece: alpha=0 samples at random from a unigram model and not at all from a BPE model; alpha=1 is the reverse.
#
# The guess: `alpha` says how far sampled segmentations are from the best one, in one direction, whichever type the
# model has: the value that was good with one is a fair start for the other, and 0 is no sampling.
# What happens: for unigram it is the exponent of the probabilities: 0 makes all segmentations equally likely, and 1 is
# near the best one. For BPE it is the share of merges that are left out: 0 is the plain segmentation, and 1 spells
# every word in letters. With 0.1, a usual value, a long sentence gets a few tokens more in one and half as many again
# in the other. Who changes the type of the tokenizer and keeps the setting gets the captions in letters, or no sampling
# any more.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 20 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile sentencepiece==0.2.3 \
  >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/sample.py" <<'PYTHON'
import io
import random
import sys
from importlib.metadata import version

import sentencepiece

print("sentencepiece", version("sentencepiece"))
print("guess: alpha=0 is the plain segmentation for both types, and the number of tokens grows with alpha")
random.seed(0)
syllables = ["ka", "to", "mi", "re", "su", "no", "la", "pi", "ve", "du"]
words = ["".join(random.choices(syllables, k=random.randint(1, 5))) for _ in range(800)]
corpus = [" ".join(random.choices(words, k=12)) for _ in range(3000)]
plain, same, length = {}, {}, {}
for kind in ("unigram", "bpe"):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, vocab_size=300, model_type=kind, minloglevel=2
    )
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    plain[kind] = tokenizer.encode(corpus[0])
    for alpha in (0.0, 0.1, 1.0):
        drawn = [tokenizer.encode(corpus[0], enable_sampling=True, alpha=alpha, nbest_size=-1) for _ in range(200)]
        same[kind, alpha] = sum(tokens == plain[kind] for tokens in drawn) / len(drawn)
        length[kind, alpha] = sum(map(len, drawn)) / len(drawn)
        print(
            f"seen: {kind}, alpha={alpha}: {same[kind, alpha]:4.0%} are the plain segmentation; "
            f"{length[kind, alpha]:.0f} tokens on average, {len(plain[kind])} plain"
        )
letters = len(corpus[0].replace(" ", ""))
as_found = same["unigram", 0.0] < 0.1 and same["unigram", 1.0] > 0.5 and same["bpe", 0.0] == 1 and same["bpe", 1.0] == 0
sys.exit(0 if as_found and length["bpe", 1.0] >= letters else "sentencepiece behaves in another way than this finding says")
PYTHON
"$work/venv/bin/python" "$work/sample.py"
