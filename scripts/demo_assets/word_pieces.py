"""Makes the three tiny tokenizers: WordPiece as BERT's, byte-level BPE as OPT's, Unigram with an end token as T5's."""

from __future__ import annotations

import json
import string
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from demo_assets.texts import PROMPT_WORDS, language_model_texts, vocabulary

TEXT_SEED = 4
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
OPT_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""OPT's first four tokens, so pad is 1 and `</s>`, its beginning and end of text, is 2."""
T5_SPECIAL = ("<pad>", "</s>", "<unk>")
SENTINELS = tuple(f"<extra_id_{i}>" for i in range(20))
MAX_LENGTH = 64
"""Tokens; the tiny models have as many positions."""


def make_bert_tokenizer(folder: Path) -> int:
    """Write a BertTokenizer whose vocabulary is the world's words, letters and digits; returns its size."""
    letters = list(string.ascii_lowercase + string.digits)
    words = [word for word in vocabulary(TEXT_SEED) if word not in letters]
    tokens = [*BERT_SPECIAL, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *words]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def make_opt_tokenizer(folder: Path) -> int:
    """Write a byte-level BPE tokenizer that puts `</s>` first, as OPT's does; returns its size."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1600,
        special_tokens=list(OPT_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(islice(language_model_texts(TEXT_SEED), 30_000), trainer)
    begin = core.token_to_id("</s>")
    core.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", begin)]
    )
    return _save(core, folder, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def make_t5_tokenizer(folder: Path) -> int:
    """Write a Unigram tokenizer that appends `</s>` and has sentinels, as T5's; returns its size."""
    words = [f"\u2581{word}" for word in (*PROMPT_WORDS, *vocabulary(TEXT_SEED))]
    scored = [(special, 0.0) for special in T5_SPECIAL] + [(word, -5.0) for word in words]
    scored += [(character, -10.0) for character in ("\u2581", *string.printable.strip())]
    core = Tokenizer(models.Unigram(scored, unk_id=T5_SPECIAL.index("<unk>")))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.add_special_tokens([AddedToken(sentinel, special=True) for sentinel in SENTINELS])
    end = core.token_to_id("</s>")
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)]
    )
    return _save(
        core,
        folder,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(SENTINELS),
    )


def _save(core: Tokenizer, folder: Path, **special: str | list[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    core.save(str(folder / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_max_length=MAX_LENGTH, padding_side="right", **special
    )
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return len(tokenizer)
