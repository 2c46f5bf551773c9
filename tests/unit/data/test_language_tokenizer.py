"""Start, end and padding of a language model's texts are what was asked for, whatever the tokenizer does by itself."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from blip2_train.data.language_tokenizer import LanguageTokenizer
from blip2_train.errors import CheckpointMismatch, ConfigError


@pytest.fixture(scope="module")
def assets(root: Path) -> Path:
    return root / "blip2_train/assets/demo"


@pytest.fixture(scope="module")
def opt(assets: Path) -> LanguageTokenizer:
    return LanguageTokenizer(str(assets / "opt"), padding_side="left", encoder_decoder=False, end_token="\n")


@pytest.fixture(scope="module")
def t5(assets: Path) -> LanguageTokenizer:
    return LanguageTokenizer(str(assets / "t5"), padding_side="left", encoder_decoder=True)


def write_words(folder: Path, template: str = "$A", **special: str) -> str:
    """A tokenizer of whole words; `template` says what it puts around a text."""
    words = ["<s>", "</s>", "<unk>", "a", "cat", "dog", "\n"]
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    core.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 0), ("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **special).save_pretrained(folder)
    return str(folder)


def test_opt_starts_with_its_end_of_text_and_ends_with_a_line_end(opt: LanguageTokenizer) -> None:
    text, front = opt.training_text("", "a cat", 32)
    assert opt.start_ids == [opt.tokenizer.eos_token_id]
    assert text == [*opt.start_ids, *opt.words("a cat"), *opt.words("\n")]
    assert front == 1 and opt.prompt("a cat") == text[:-1]


def test_t5_ends_what_its_encoder_reads(t5: LanguageTokenizer) -> None:
    assert t5.start_ids == [] and t5.prompt("a cat") == [*t5.words("a cat"), t5.tokenizer.eos_token_id]
    assert t5.prompt("") == [t5.tokenizer.eos_token_id]
    assert t5.finished("a cat on a mat", 3) == [*t5.words("a cat on a mat")[:2], t5.end_id]


@pytest.mark.parametrize("template", ["<s> $A", "<s> $A </s>"])
def test_only_what_stands_in_front_of_a_text_is_its_start(tmp_path: Path, template: str) -> None:
    name = write_words(tmp_path, template, eos_token="</s>", pad_token="<unk>")
    tokenizer = LanguageTokenizer(name, padding_side="right", encoder_decoder=False)
    assert tokenizer.start_ids == [0] and tokenizer.prompt("cat") == [0, 4]
    assert tokenizer.training_text("", "a cat", 9) == ([0, 3, 4, 1], 1)


def test_a_tokenizer_that_adds_nothing_has_no_start(tmp_path: Path) -> None:
    tokenizer = LanguageTokenizer(
        write_words(tmp_path, eos_token="</s>"), padding_side="left", encoder_decoder=False, pad_token="</s>"
    )
    assert tokenizer.start_ids == []
    ids, mask = tokenizer.padded([tokenizer.prompt("") for _ in range(2)])
    assert ids.shape == mask.shape == (2, 0)
    assert LanguageTokenizer(
        tokenizer.name, padding_side="left", encoder_decoder=False, pad_token="</s>", start_token="<s>"
    ).prompt("cat") == [0, 4]


def test_a_tokenizer_without_padding_or_end_says_what_to_set(tmp_path: Path) -> None:
    name = write_words(tmp_path)
    with pytest.raises(ConfigError, match=r"has no end token; set model\.language\.end_token"):
        LanguageTokenizer(name, padding_side="left", encoder_decoder=False)
    with pytest.raises(ConfigError, match=r"has no pad token; set model\.language\.pad_token"):
        LanguageTokenizer(name, padding_side="left", encoder_decoder=False, end_token="\n")
    with pytest.raises(ConfigError, match=r"end_token 'bird' is 1 tokens .* not one it knows"):
        LanguageTokenizer(name, padding_side="left", encoder_decoder=False, end_token="bird", pad_token="</s>")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match=r"there is no language model folder .*gone"):
        LanguageTokenizer(str(tmp_path / "gone"), padding_side="left", encoder_decoder=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointMismatch, match="empty cannot be loaded"):
        LanguageTokenizer(str(tmp_path / "empty"), padding_side="left", encoder_decoder=False)


def test_truncation_takes_text_and_nothing_else(opt: LanguageTokenizer) -> None:
    prompt = len(opt.words("a photo of"))
    for length in range(prompt + 3, 14):
        ids, front = opt.training_text("a photo of", "a cat and a dog and a cat and a dog", length)
        assert len(ids) == length and ids[-1] == opt.end_id
        assert ids[:front] == opt.prompt("a photo of") and front == 1 + prompt
    with pytest.raises(ConfigError, match="leaves no room for text"):
        opt.training_text("a photo of", "a cat", prompt + 2)


def test_both_sides_pad_the_same_rows(opt: LanguageTokenizer) -> None:
    rows = [[5, 6, 7], [8]]
    left, right = opt.padded(rows), opt.padding_on("right").padded(rows)
    assert opt.padding_side == "left"
    assert left[0].tolist() == [[5, 6, 7], [opt.pad_id, opt.pad_id, 8]]
    assert right[0].tolist() == [[5, 6, 7], [8, opt.pad_id, opt.pad_id]]
    for ids, mask in (left, right):
        assert [ids[n][mask[n]].tolist() for n in range(2)] == rows


def test_generated_text_ends_with_the_end_token(opt: LanguageTokenizer, t5: LanguageTokenizer) -> None:
    cat, dog = opt.words(" a cat"), opt.words(" a dog")
    width = max(len(cat), len(dog)) + 2
    rows = [[*cat, opt.end_id, *dog][:width], [*dog, *[opt.pad_id] * (width - len(dog))]]
    assert opt.decode(torch.tensor([row + [opt.pad_id] * (width - len(row)) for row in rows])) == ["a cat", "a dog"]
    said = torch.tensor([[0, *t5.words("a cat"), t5.end_id, t5.pad_id]])
    assert t5.decode(said) == ["a cat"]
    assert opt.decode(torch.empty(2, 0, dtype=torch.int64)) == ["", ""]


def test_an_encoder_decoder_that_starts_with_its_end_token_is_read(tmp_path: Path) -> None:
    name = write_words(tmp_path, eos_token="</s>", pad_token="<s>")
    tokenizer = LanguageTokenizer(name, padding_side="left", encoder_decoder=True)
    assert tokenizer.decode(torch.tensor([[1, 4, 1, 5]])) == ["cat"]  # as BART
