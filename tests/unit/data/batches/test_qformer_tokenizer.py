from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shard_files import WORDS, write_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from blip2_train.data.batches.collate import ImageTextCollator
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.types import ImageTextSample, RejectedSample


def test_the_decoder_start_is_the_last_token(tmp_path: Path) -> None:
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path))
    assert len(tokenizer) == len(WORDS) + 6
    assert tokenizer.bos_token == "[DEC]" and tokenizer.bos_token_id == len(tokenizer) - 1
    assert tokenizer.convert_ids_to_tokens(tokenizer("a red cat").input_ids) == ["[CLS]", "a", "red", "cat", "[SEP]"]
    assert tokenizer.pad_token_id == 0


def test_a_saved_tokenizer_loads_again(tmp_path: Path) -> None:
    tokenizer = load_qformer_tokenizer(write_tokenizer(tmp_path / "first"))
    tokenizer.save_pretrained(tmp_path / "second")
    again = load_qformer_tokenizer(str(tmp_path / "second"))
    assert again.get_vocab() == tokenizer.get_vocab()


def test_wrong_tokenizers_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "gpt").mkdir()
    model = {"type": "BPE", "vocab": {"a": 0, "<|endoftext|>": 1}, "merges": []}
    (tmp_path / "gpt" / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "tokenizer.json").write_text("{")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "vocab.txt").write_text("a\nb\n")
    (tmp_path / "moved").mkdir()
    write_tokenizer(tmp_path / "moved", ["a", "[DEC]", "b"])
    for name, message in {
        "missing": "there is no tokenizer folder",
        "empty": "neither vocab.txt nor tokenizer.json",
        "gpt": "is not a BERT tokenizer.*CLS",
        "torn": "cannot be read",
        "plain": "lacks .*PAD",
        "moved": "not as the last",
    }.items():
        with pytest.raises(CheckpointMismatch, match=message) as caught:
            load_qformer_tokenizer(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)


TOKENS = "[PAD] [UNK] [CLS] [SEP] [MASK] A a Cat cat caf ##é café cafe Η η γάτα γατα 猫 在 ##在 .".split()
TEXT = "A Cat café Η γάτα 猫在."
SWITCHES = [(True, None, True), (False, None, True), (True, False, True), (False, True, False)]
"""`do_lower_case`, `strip_accents`, `tokenize_chinese_chars`."""


def wordpiece_text(switches: tuple[Any, ...] = (True, None, True), tokens: list[str] = TOKENS) -> Tokenizer:
    """A tokenizer of the library, without transformers, as BERT's are published."""
    lower, accents, chinese = switches
    made = Tokenizer(models.WordPiece({token: token_id for token_id, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(
        lowercase=lower, strip_accents=accents, handle_chinese_chars=chinese, clean_text=True
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", tokens.index("[CLS]")), ("[SEP]", tokens.index("[SEP]"))]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return made


def files(folder: Path, made: Tokenizer | None = None, vocabulary_tokens: bool = False, **config: Any) -> str:
    """A folder with `tokenizer.json`, `vocab.txt` and `tokenizer_config.json`, each if it is given."""
    folder.mkdir(parents=True, exist_ok=True)
    if made is not None:
        made.save(str(folder / "tokenizer.json"))
    if vocabulary_tokens:
        (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


def tokens_of_text(tokenizer: Any, text: str = TEXT) -> list[str]:
    return [str(token) for token in tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)]


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("given", ["json", "json and words", "json and class", "words and config", "all"])
def test_letters_are_kept_or_changed_as_the_files_say(tmp_path: Path, switches: tuple[Any, ...], given: str) -> None:
    """Also where nothing but `tokenizer.json` says it, which transformers 5 does not look at."""
    made = wordpiece_text(switches)
    stated = dict(zip(("do_lower_case", "strip_accents", "tokenize_chinese_chars"), switches, strict=True))
    folder = {
        "json": lambda: files(tmp_path, made),
        "json and words": lambda: files(tmp_path, made, vocabulary_tokens=True),
        "json and class": lambda: files(tmp_path, made, tokenizer_class="BertTokenizerFast", model_max_length=512),
        "words and config": lambda: files(tmp_path, vocabulary_tokens=True, **stated),
        "all": lambda: files(tmp_path, made, vocabulary_tokens=True, tokenizer_class="BertTokenizer", **stated),
    }[given]()
    tokenizer = load_qformer_tokenizer(folder)
    assert tokens_of_text(tokenizer) == made.encode(TEXT).tokens
    assert len(tokenizer) == len(TOKENS) + 1 == tokenizer.bos_token_id + 1
    tokenizer.save_pretrained(tmp_path / "again")
    assert tokens_of_text(load_qformer_tokenizer(str(tmp_path / "again"))) == made.encode(TEXT).tokens


def test_a_vocabulary_alone_is_english(tmp_path: Path) -> None:
    assert (
        tokens_of_text(load_qformer_tokenizer(files(tmp_path, vocabulary_tokens=True)))
        == wordpiece_text().encode(TEXT).tokens
    )


def test_added_tokens_stay_and_the_decoder_start_comes_behind_them(tmp_path: Path) -> None:
    made = wordpiece_text((False, None, True))
    made.add_tokens(["<new>", "[unused1]"])
    tokenizer = load_qformer_tokenizer(files(tmp_path, made, do_lower_case=False))
    assert len(tokenizer) == len(TOKENS) + 3 and tokenizer.bos_token_id == len(TOKENS) + 2
    assert tokens_of_text(tokenizer, "A <new> Cat") == ["[CLS]", "A", "<new>", "Cat", "[SEP]"]


def test_sides_and_longest_text_of_the_files_do_not_count(tmp_path: Path) -> None:
    folder = files(tmp_path, vocabulary_tokens=True, padding_side="left", truncation_side="left", model_max_length=4)
    batch = ImageTextCollator(load_qformer_tokenizer(folder), max_text_length=6)([_sample("cat . a . cat . a")])
    tokens = load_qformer_tokenizer(folder).convert_ids_to_tokens(batch.input_ids[0].tolist())
    assert tokens == ["[CLS]", "cat", ".", "a", ".", "[SEP]"]


def _unigram(folder: Path) -> str:
    return files(folder, Tokenizer(models.Unigram([(token, -float(n)) for n, token in enumerate(TOKENS)], unk_id=1)))


def _lowered(folder: Path) -> str:
    made = wordpiece_text()
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return files(folder, made)


def _plain(folder: Path) -> str:
    made = wordpiece_text()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return files(folder, made)


def _twice(folder: Path) -> str:
    write_tokenizer(folder, ["a", "cat", "a", "dog"])
    return str(folder)


def _skipped(folder: Path) -> str:
    made = wordpiece_text()
    content = json.loads(made.to_str())
    content["model"]["vocab"] = {
        token: token_id + (token_id > 9) for token, token_id in content["model"]["vocab"].items()
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    ("make", "vocabulary_tokens"),
    [
        (_unigram, "the model of its tokenizer.json is Unigram, BERT's is WordPiece"),
        (_lowered, "the normalizer of its tokenizer.json is Sequence"),
        (_plain, "the pre_tokenizer of its tokenizer.json is Whitespace"),
        (_twice, "no token with id 5: a token stands twice"),
        (_skipped, "no token with id 10"),
        (lambda f: files(f, wordpiece_text(tokens=[*TOKENS[1:5], "[PAD]", *TOKENS[5:]])), r"\[PAD\] at 4"),
        (
            lambda f: files(f, vocabulary_tokens=True, tokenizer_class="BertJapaneseTokenizer"),
            "is a BertJapaneseTokenizer",
        ),
        (lambda f: files(f, vocabulary_tokens=True, do_lower_case="false"), "do_lower_case is 'false'"),
    ],
)
def test_what_would_split_texts_otherwise_is_refused(
    tmp_path: Path, make: Callable[[Path], str], vocabulary_tokens: str
) -> None:
    """A second token of one name, or an id left out, would give `[DEC]` the id of another token."""
    with pytest.raises(CheckpointMismatch, match=vocabulary_tokens) as caught:
        load_qformer_tokenizer(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str) -> None:
    files(tmp_path, vocabulary_tokens=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointMismatch, match=name) as caught:
        load_qformer_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_cannot_be_had_is_named() -> None:
    """transformers alone gives a tokenizer without words."""
    with pytest.raises(CheckpointMismatch, match=r"tokenizer: bert-base-uncased .*could not be fetched.*local folder"):
        load_qformer_tokenizer("bert-base-uncased")


def _sample(caption: str, token_id: int = 0) -> ImageTextSample:
    bad = RejectedSample(source="s", key=str(token_id), reason="r", detail="")
    return ImageTextSample(
        pixel_values=torch.full((3, 2, 2), float(token_id)), caption=caption, image_id=2**62 + token_id,
        sample_id=f"s/{token_id}#0", rejected=(bad,) * token_id,
    )  # fmt: skip


def test_a_batch(tmp_path: Path) -> None:
    collate = ImageTextCollator(load_qformer_tokenizer(write_tokenizer(tmp_path)), max_text_length=6)
    batch = collate([_sample("a cat", 0), _sample("a b c d e f g h", 1), _sample("🎉", 2)])
    assert batch.input_ids.shape == batch.attention_mask.shape == (3, 6)
    assert batch.attention_mask.dtype == torch.bool
    assert batch.attention_mask.sum(1).tolist() == [4, 6, 3]
    assert batch.longest_text == 6
    assert batch.input_ids[1, -1] == 3, "[SEP] stays when a text is cut"
    assert batch.input_ids[0].tolist()[4:] == [0, 0]
    assert batch.image_ids.tolist() == [2**62, 2**62 + 1, 2**62 + 2]
    assert batch.sample_ids == ("s/0#0", "s/1#0", "s/2#0") and len(batch.rejected) == 3 and len(batch) == 3
    assert collate([_sample("a cat")]).longest_text == 4


def test_no_room_for_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_text_length"):
        ImageTextCollator(load_qformer_tokenizer(write_tokenizer(tmp_path)), max_text_length=2)
