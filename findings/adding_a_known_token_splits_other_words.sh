#!/usr/bin/env bash
# tokenizers: adding a token that the vocabulary has already breaks the words that contain it, and counts as one more.
#
# The guess: add_tokens(["cat"]) with "cat" in the vocabulary does nothing: it returns 0 and every text keeps its ids.
# What happens: the id is the old one and the vocabulary stays as large as it was, but the returned number is 1 (who
# makes the embeddings larger by it has a row too many), and from now on "cat" is cut out of every text before the model
# sees it: "catalog", one token before, becomes "cat" and an unknown rest, and so does "cats". Labels or answers of a
# classifier added "to be safe" change the tokens of the captions in this way. AddedToken(..., single_word=True) does
# not.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 30 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps tokenizers==0.23.3 \
  >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/add.py" <<'PYTHON'
import tokenizers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers


def build():
    vocabulary = {"[UNK]": 0, "a": 1, "cat": 2, "##s": 3, "catalog": 4}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def look(name, tokenizer):
    print(f"seen: {name}:", *(" ".join(tokenizer.encode(text).tokens) for text in ("a cat", "cats", "a catalog")), sep=" | ")


print("tokenizers", tokenizers.__version__)
print("guess: 0 tokens are added, and nothing changes")
look("before", build())
for name, token in (("cat", "cat"), ("cat as a single word", AddedToken("cat", single_word=True))):
    tokenizer = build()
    before = tokenizer.get_vocab_size()
    print(f"seen: add_tokens returns {tokenizer.add_tokens([token])}, vocabulary {before} -> {tokenizer.get_vocab_size()}")
    look(f"with {name}", tokenizer)
PYTHON
"$work/venv/bin/python" "$work/add.py" | tee "$work/output"
diff "$work/output" - <<'EXPECTED' || { echo "tokenizers behaves in another way than this finding says" >&2; exit 1; }
tokenizers 0.23.3
guess: 0 tokens are added, and nothing changes
seen: before: | a cat | cat ##s | a catalog
seen: add_tokens returns 1, vocabulary 5 -> 5
seen: with cat: | a cat | cat [UNK] | a cat [UNK]
seen: add_tokens returns 1, vocabulary 5 -> 5
seen: with cat as a single word: | a cat | cat ##s | a catalog
EXPECTED
