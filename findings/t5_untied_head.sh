#!/usr/bin/env bash
# transformers 5.24: a T5 whose configuration says tie_word_embeddings=False is tied all the same.
#
# FlanT5 (T5 1.1) has a vocabulary head of its own, and its published configuration says so. transformers 5.24
# reads the key, keeps what follows from it (scale_decoder_outputs) and then sets tie_word_embeddings to True: a model
# that is built from the configuration has one matrix for words and head. Only from_pretrained of a file that holds two
# different matrices takes them apart, with a warning.
# Exits with an error if the library behaves in another way. Needs the network: about 6 GB in a temporary folder.
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 transformers==5.24.0
"$place/venv/bin/python" - "$place/model" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from transformers import T5Config, T5ForConditionalGeneration

print("python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("torch", "transformers")))
print("guess: tie_word_embeddings=False gives a model with two matrices, and the key stays")
sizes = dict(vocab_size=50, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0)
config = T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
model = T5ForConditionalGeneration(config)
tied = model.lm_head.weight is model.shared.weight
print(f"seen: tie_word_embeddings {config.tie_word_embeddings}, scale_decoder_outputs {config.scale_decoder_outputs}")
print(f"seen: built from the configuration, head and words are {'one matrix' if tied else 'two matrices'}")

model.lm_head.weight = torch.nn.Parameter(torch.randn(50, 32))
model.save_pretrained(sys.argv[1])
again = T5ForConditionalGeneration.from_pretrained(sys.argv[1])
own = again.lm_head.weight is not again.shared.weight and torch.equal(again.lm_head.weight, model.lm_head.weight)
print(f"seen: from a file with two different matrices, the head is {'its own, bitwise' if own else 'lost'}")
print("way round: take the head apart after building; load weights by from_pretrained only")
as_found = config.tie_word_embeddings and not config.scale_decoder_outputs and tied and own
sys.exit(0 if as_found else "the library behaves in another way than this finding says")
PYTHON
