"""Start, end and padding of a language model's texts are what was asked for, whatever the tokenizer does by itself."""

import json
from pathlib import Path

import pytest
import torch
from published_tokenizers import FAMILIES, SENTENCES, write_language_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from blip2_train.data.batches import language_tokenizer
from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
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


def write_vocabulary(folder: Path, template: str = "$A", **special: str) -> str:
    """A tokenizer of whole words; `template` says what it puts around a text."""
    ids_of_text = ["<s>", "</s>", "<unk>", "a", "cat", "dog", "\n"]
    core = Tokenizer(models.WordLevel({token: n for n, token in enumerate(ids_of_text)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    core.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 0), ("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **special).save_pretrained(folder)
    return str(folder)


def test_opt_starts_with_its_end_of_text_and_ends_with_a_line_end(opt: LanguageTokenizer) -> None:
    text, front = opt.training_text("", "a cat", 32)
    assert opt.start_ids == [opt.tokenizer.eos_token_id]
    assert text == [*opt.start_ids, *opt.text_ids("a cat"), *opt.text_ids("\n")]
    assert front == 1 and opt.prompt_ids("a cat") == text[:-1]


def test_t5_ends_what_its_encoder_reads(t5: LanguageTokenizer) -> None:
    assert t5.start_ids == [] and t5.prompt_ids("a cat") == [*t5.text_ids("a cat"), t5.tokenizer.eos_token_id]
    assert t5.prompt_ids("") == [t5.tokenizer.eos_token_id]
    assert t5.finished_ids("a cat on a mat", 3) == [*t5.text_ids("a cat on a mat")[:2], t5.end_id]


def test_a_value_that_is_looked_at_only_when_a_text_is_read(tmp_path: Path) -> None:
    name = write_vocabulary(tmp_path, eos_token="</s>", pad_token="<unk>")
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": "many"}))
    with pytest.raises(CheckpointMismatch, match=r"tokenizer of language model .* cannot be loaded"):
        LanguageTokenizer(name, padding_side="right", encoder_decoder=False)


@pytest.mark.parametrize("template", ["<s> $A", "<s> $A </s>"])
def test_only_what_stands_in_front_of_a_text_is_its_start(tmp_path: Path, template: str) -> None:
    name = write_vocabulary(tmp_path, template, eos_token="</s>", pad_token="<unk>")
    tokenizer = LanguageTokenizer(name, padding_side="right", encoder_decoder=False)
    assert tokenizer.start_ids == [0] and tokenizer.prompt_ids("cat") == [0, 4]
    assert tokenizer.training_text("", "a cat", 9) == ([0, 3, 4, 1], 1)


def test_a_tokenizer_that_adds_nothing_has_no_start(tmp_path: Path) -> None:
    tokenizer = LanguageTokenizer(
        write_vocabulary(tmp_path, eos_token="</s>"), padding_side="left", encoder_decoder=False, pad_token="</s>"
    )
    assert tokenizer.start_ids == []
    ids, mask = tokenizer.padded([tokenizer.prompt_ids("") for _ in range(2)])
    assert ids.shape == mask.shape == (2, 0)
    assert LanguageTokenizer(
        tokenizer.name, padding_side="left", encoder_decoder=False, pad_token="</s>", start_token="<s>"
    ).prompt_ids("cat") == [0, 4]


def test_a_missing_end_is_an_error_with_advice_and_without_padding_the_end_pads(tmp_path: Path) -> None:
    name = write_vocabulary(tmp_path)
    with pytest.raises(ConfigError, match=r"has no end token; set model\.language\.end_token"):
        LanguageTokenizer(name, padding_side="left", encoder_decoder=False)
    ended = LanguageTokenizer(name, padding_side="left", encoder_decoder=False, end_token="\n")
    assert ended.pad_id == ended.end_id == 6
    with pytest.raises(ConfigError, match=r"end_token 'bird' is 1 tokens .* not one that it has"):
        LanguageTokenizer(name, padding_side="left", encoder_decoder=False, end_token="bird", pad_token="</s>")
    known = LanguageTokenizer(name, padding_side="left", encoder_decoder=False, end_token="<unk>", pad_token="<unk>")
    assert known.end_id == known.pad_id == 2  # in the vocabulary, although it is the unknown token


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match=r"there is no language model folder .*gone"):
        LanguageTokenizer(str(tmp_path / "gone"), padding_side="left", encoder_decoder=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointMismatch, match="empty cannot be loaded"):
        LanguageTokenizer(str(tmp_path / "empty"), padding_side="left", encoder_decoder=False)


def test_truncation_takes_text_and_nothing_else(opt: LanguageTokenizer) -> None:
    prompt = len(opt.text_ids("a photo of"))
    for length in range(prompt + 3, 14):
        ids, front = opt.training_text("a photo of", "a cat and a dog and a cat and a dog", length)
        assert len(ids) == length and ids[-1] == opt.end_id
        assert ids[:front] == opt.prompt_ids("a photo of") and front == 1 + prompt
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
    cat, dog = opt.text_ids(" a cat"), opt.text_ids(" a dog")
    width = max(len(cat), len(dog)) + 2
    rows = [[*cat, opt.end_id, *dog][:width], [*dog, *[opt.pad_id] * (width - len(dog))]]
    assert opt.decode(torch.tensor([row + [opt.pad_id] * (width - len(row)) for row in rows])) == ["a cat", "a dog"]
    generated = torch.tensor([[0, *t5.text_ids("a cat"), t5.end_id, t5.pad_id]])
    assert t5.decode(generated) == ["a cat"]
    assert opt.decode(torch.empty(2, 0, dtype=torch.int64)) == ["", ""]


def test_an_encoder_decoder_that_starts_with_its_end_token_is_read(tmp_path: Path) -> None:
    name = write_vocabulary(tmp_path, eos_token="</s>", pad_token="<s>")
    tokenizer = LanguageTokenizer(name, padding_side="left", encoder_decoder=True)
    assert tokenizer.decode(torch.tensor([[1, 4, 1, 5]])) == ["cat"]  # as BART


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each family, by name."""
    folder = tmp_path_factory.mktemp("published")
    for name in FAMILIES:
        write_language_model(name, folder / name)
    return folder


def tokenizer_in(folder: Path, encoder_decoder: bool = False, **tokens: str) -> LanguageTokenizer:
    return LanguageTokenizer(str(folder), padding_side="right", encoder_decoder=encoder_decoder, **tokens)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["published", "tokenizer.json"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_a_published_family_are_its_own(family: str, layout: str, published: Path, tmp_path: Path) -> None:
    """From vocabulary files, as slow tokenizers had them, and from the one file of a fast one."""
    about, folder = FAMILIES[family], published / family
    if layout == "tokenizer.json":
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
        for file in ("config.json", "generation_config.json"):
            (tmp_path / file).write_bytes((folder / file).read_bytes())
        folder = tmp_path
        assert not (folder / "vocab.json").exists()
    loaded = tokenizer_in(folder, about.encoder_decoder)
    named = loaded.tokenizer.convert_ids_to_tokens
    assert tuple(named(loaded.start_ids)) == about.start
    assert (named(loaded.end_id), named(loaded.pad_id)) == (about.end, about.pad)
    assert set(named(loaded.end_ids)) == {about.end, *about.more_ends} and loaded.end_ids[0] == loaded.end_id
    if about.encoder_decoder:
        assert loaded.finished_ids("a cat", 9) == [*loaded.start_ids, *loaded.text_ids("a cat"), loaded.end_id]
    else:
        ids, front = loaded.training_text("a photo of", "a cat", 30)
        assert ids == [*loaded.start_ids, *loaded.text_ids("a photo of a cat"), loaded.end_id]
        assert ids[:front] == loaded.prompt_ids("a photo of")
    for end in loaded.end_ids:
        row = [*loaded.text_ids("a dog"), end, *loaded.text_ids("a cat")]
        before = [loaded.end_id, *loaded.start_ids] if about.encoder_decoder else []
        assert loaded.decode(torch.tensor([[*before, *row]])) == ["a dog"]
    loaded.save_pretrained(tmp_path / "kept")
    again = tokenizer_in(tmp_path / "kept", about.encoder_decoder)
    for known in ("start_ids", "end_ids", "pad_id"):
        assert getattr(again, known) == getattr(loaded, known)


def test_given_tokens_replace_those_of_the_model(published: Path) -> None:
    llama, opt = published / "llama_3", published / "opt"
    chosen = tokenizer_in(llama, end_token="<|end_of_text|>")  # one of its own: all of them stop
    assert chosen.end_ids[0] == chosen.end_id != tokenizer_in(llama).end_id
    assert set(chosen.end_ids) == set(tokenizer_in(llama).end_ids)
    recipe = tokenizer_in(opt, start_token="</s>", end_token="\n")  # as the released code
    assert recipe.start_ids == [2] and recipe.end_ids == recipe.text_ids("\n") and recipe.pad_id == 1
    assert tokenizer_in(opt, end_token=r"\n").end_ids == recipe.end_ids  # as a shell passes on "\n"
    line_end = tokenizer_in(published / "llama_2", end_token="\n")  # a byte, behind a blank if it begins a text
    assert line_end.tokenizer.convert_ids_to_tokens(line_end.end_ids) == ["<0x0A>"]


@pytest.mark.parametrize("family", ["llama_2", "mistral", "gemma", "llama_3"])
def test_no_text_starts_with_the_end(family: str, published: Path) -> None:
    with pytest.raises(ConfigError, match=r"start_token .* is the end token of .* leave start_token out"):
        tokenizer_in(published / family, start_token=FAMILIES[family].end)
    with pytest.raises(ConfigError, match="is the end token of"):
        tokenizer_in(published / family, start_token="a", end_token="a")


@pytest.mark.parametrize("family", ["opt", "gpt2", "phi", "qwen2"])
def test_an_end_that_starts_texts_by_convention_may(family: str, published: Path, tmp_path: Path) -> None:
    end = FAMILIES[family].end
    loaded = tokenizer_in(published / family, start_token=end)
    assert loaded.start_ids == [loaded.end_id]
    loaded.save_pretrained(tmp_path)
    assert tokenizer_in(tmp_path, start_token=end).start_ids == [loaded.end_id]


def test_an_end_that_only_the_configuration_states(tmp_path: Path) -> None:
    name = write_vocabulary(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [6, 1], "pad_token_id": 99}))
    loaded = tokenizer_in(Path(name))
    assert loaded.end_ids == [6, 1] and loaded.pad_id == 6  # 99 is no token of the seven


def test_a_sentencepiece_file_alone_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spiece.model").write_bytes(b"")
    monkeypatch.setattr(language_tokenizer, "find_spec", lambda name: None)
    with pytest.raises(
        CheckpointMismatch, match=r"\(spiece.model\); the package that reads it .*: pip install sentencepiece"
    ):
        tokenizer_in(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointMismatch, match="cannot be loaded"):  # by what it does hold
        tokenizer_in(tmp_path)


@pytest.mark.parametrize("family", ["t5", "llama_2"])
def test_a_sentencepiece_file_alone_is_read_with_the_package(family: str, published: Path, tmp_path: Path) -> None:
    """As T5 1.1 and the first Llamas lie on the hub."""
    sentencepiece = pytest.importorskip("sentencepiece")
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((published / family / file).read_bytes())
    kinds = {
        "t5": {"model_type": "unigram", "vocab_size": 60, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        "llama_2": {"model_type": "bpe", "vocab_size": 340, "byte_fallback": True},
    }
    file = tmp_path / {"t5": "spiece.model", "llama_2": "tokenizer.model"}[family]
    with file.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES), model_writer=writer, hard_vocab_limit=False, **kinds[family]
        )
    about = FAMILIES[family]
    loaded = tokenizer_in(tmp_path, about.encoder_decoder)
    named = loaded.tokenizer.convert_ids_to_tokens
    assert (tuple(named(loaded.start_ids)), named(loaded.end_ids), named(loaded.pad_id)) == (
        about.start, [about.end], about.pad
    )  # fmt: skip
    assert loaded.tokenizer.decode(loaded.text_ids("a cat")) == "a cat"
