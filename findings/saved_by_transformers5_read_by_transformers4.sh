#!/usr/bin/env bash
# What transformers 5 saves and transformers 4 reads otherwise: a Llama's rotary base without a word, a tokenizer with an exception.
#
# The guess: a model folder saved by transformers 5 is read by 4.57 as what it is, or refused.
# What happens: the configuration is read without a warning, but 4.57 looks for `rope_theta`, while 5 writes the rotary
# base into `rope_parameters` only; 4.57 then takes its default, 10,000, so that a Llama 3 (500,000) writes nonsense.
# The tokenizer of the same folder is refused twice: by its class, `TokenizersBackend`, and, once that is mended, by its
# list of `extra_special_tokens`; there 4.57 names protobuf as what lacks, which has nothing to do with it (with protobuf:
# AttributeError: 'list' object has no attribute 'keys'). With `rope_theta`, `PreTrainedTokenizerFast` and
# `additional_special_tokens` in the files, both versions read the same.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 300 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 4.57.6 5.24.0; do
  "${PYTHON:-python3}" -m venv "$work/$version"
  "$work/$version/bin/python" -m pip install --quiet --disable-pip-version-check "transformers==$version" 2>/dev/null
done
export TRANSFORMERS_VERBOSITY=warning TRANSFORMERS_NO_ADVISORY_WARNINGS=1 HF_HUB_OFFLINE=1

cat >"$work/save.py" <<'PYTHON'
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "cat": 2}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
tokenizer.save_pretrained(sys.argv[1])
LlamaConfig(rope_theta=500_000.0).save_pretrained(sys.argv[1])
PYTHON
cat >"$work/read.py" <<'PYTHON'
import sys
import transformers
from transformers import AutoTokenizer, LlamaConfig

config = LlamaConfig.from_pretrained(sys.argv[1])
computed_with = config.rope_theta if transformers.__version__.startswith("4.") else config.rope_parameters["rope_theta"]
print(f"transformers {transformers.__version__}: rotary base {computed_with:,.0f}")
try:
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    print(f"transformers {transformers.__version__}: tokenizer {tokenizer('a cat <extra>').input_ids}")
except Exception as error:
    print(f"transformers {transformers.__version__}: {type(error).__name__}: {' '.join(str(error).split())[:90]}")
PYTHON
cat >"$work/mend.py" <<'PYTHON'
import json
import sys
from pathlib import Path

step, folder = sys.argv[1], Path(sys.argv[2])
config, tokens = (json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
if step == "class":
    tokens["tokenizer_class"] = "PreTrainedTokenizerFast"
else:
    tokens["additional_special_tokens"] = tokens.pop("extra_special_tokens")
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
(folder / "config.json").write_text(json.dumps(config))
(folder / "tokenizer_config.json").write_text(json.dumps(tokens))
PYTHON

look() { for version in 4.57.6 5.24.0; do "$work/$version/bin/python" "$work/read.py" "$work/model" 2>"$work/messages"; cat "$work/messages" >>"$work/warnings"; done; }
{
  "$work/5.24.0/bin/python" "$work/save.py" "$work/model" 2>/dev/null
  echo "as transformers 5.24.0 saves it:"; : >"$work/warnings"; look
  echo "guess: the rotary base is 500,000 in both, or there is a warning"
  grep -qi rope "$work/warnings" && echo "with a warning about it" || echo "without a warning about the rotary base"
  "$work/4.57.6/bin/python" "$work/mend.py" class "$work/model"; echo "with a tokenizer class that both know:"; look
  "$work/4.57.6/bin/python" "$work/mend.py" names "$work/model"; echo "with the names of both:"; look
} | tee "$work/output"

diff "$work/output" - <<'EXPECTED' || { echo "transformers behaves in another way than this finding says" >&2; exit 1; }
as transformers 5.24.0 saves it:
transformers 4.57.6: rotary base 10,000
transformers 4.57.6: ValueError: Tokenizer class TokenizersBackend does not exist or is not currently imported.
transformers 5.24.0: rotary base 500,000
transformers 5.24.0: tokenizer [1, 2, 3]
guess: the rotary base is 500,000 in both, or there is a warning
without a warning about the rotary base
with a tokenizer class that both know:
transformers 4.57.6: rotary base 10,000
transformers 4.57.6: ImportError: requires the protobuf library but it was not found in your environment. Check out the inst
transformers 5.24.0: rotary base 500,000
transformers 5.24.0: tokenizer [1, 2, 3]
with the names of both:
transformers 4.57.6: rotary base 500,000
transformers 4.57.6: tokenizer [1, 2, 3]
transformers 5.24.0: rotary base 500,000
transformers 5.24.0: tokenizer [1, 2, 3]
EXPECTED
