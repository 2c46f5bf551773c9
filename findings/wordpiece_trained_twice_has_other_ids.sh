#!/usr/bin/env bash
# tokenizers: WordPiece trained twice on one corpus has the same tokens under other ids; BPE has the same ids.
#
# The guess: training has no random part, so the same corpus, version and machine give the same file; at most threads
# might disturb it, and then the tokens too.
# What happens: the tokens are the same set each time, which hides it, but the ids of WordPiece differ between any two
# runs, and so do the files of Unigram; neither one thread nor PYTHONHASHSEED helps. BPE without a prefix for the inside
# of words is the same each time. A model whose WordPiece vocabulary is made anew "from the same corpus" reads other
# words than it learned, while its embeddings fit and no token is missing. Keep the file; never remake it.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 30 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps tokenizers==0.23.3 \
  >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/train.py" <<'PYTHON'
import random
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

random.seed(0)
syllables = ["ka", "to", "mi", "re", "su", "no", "la", "pi", "ve", "du"]
words = ["".join(random.choices(syllables, k=random.randint(1, 5))) for _ in range(800)]
corpus = [" ".join(random.choices(words, k=12)) for _ in range(3000)]
options = {"special_tokens": ["[UNK]"], "show_progress": False}
for model, trainer in (
    (models.BPE(unk_token="[UNK]"), trainers.BpeTrainer(vocab_size=400, **options)),
    (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(vocab_size=400, **options)),
    (models.Unigram(), trainers.UnigramTrainer(vocab_size=200, unk_token="[UNK]", **options)),
):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.save(f"{sys.argv[1]}/{type(model).__name__}.json")
PYTHON
cat >"$work/compare.py" <<'PYTHON'
import sys
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer

print("tokenizers", tokenizers.__version__)
print("guess: three runs give three equal files")
for name in ("BPE", "WordPiece", "Unigram"):
    files = [Path(folder, f"{name}.json") for folder in sys.argv[1:]]
    texts = {file.read_text() for file in files}
    tokens = {tuple(sorted(Tokenizer.from_file(str(file)).get_vocab())) for file in files}
    ids = {tuple(sorted(Tokenizer.from_file(str(file)).get_vocab().items())) for file in files}
    print(f"seen: {name}: files {len(texts)}, numberings of the tokens {len(ids)}, sets of tokens {len(tokens)}")
PYTHON
for run in 1 2 3; do
  mkdir "$work/$run"
  PYTHONHASHSEED=0 RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false "$work/venv/bin/python" "$work/train.py" "$work/$run"
done
"$work/venv/bin/python" "$work/compare.py" "$work/1" "$work/2" "$work/3" | tee "$work/output"
grep -q "BPE: files 1, numberings of the tokens 1, sets of tokens 1" "$work/output" &&
  grep -q "WordPiece: files 3, numberings of the tokens 3, sets of tokens 1" "$work/output" &&
  grep -q "Unigram: files 3, " "$work/output" ||
  { echo "tokenizers behaves in another way than this finding says" >&2; exit 1; }
