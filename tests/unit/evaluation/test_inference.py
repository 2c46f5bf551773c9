"""What a model says, scores and embeds: new text only, the same alone and in a batch, by the formulas of training."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import our_model, save_theirs, their_model
from tiny_writer import QUESTIONS, reader, shown, writer
from torch.nn import functional as F
from transformers import GenerationConfig

from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.cli.convert_checkpoint import main as convert
from blip2_train.errors import Blip2TrainError, ConfigError, ShardError
from blip2_train.evaluation.generation import PromptTooLong
from blip2_train.evaluation.qformer_captions import decode_word_pieces
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.image_text import ImageTextModel
from blip2_train.pretrained import load_pretrained

GREEDY = GenerationOptions(num_beams=1, max_new_tokens=6)
FAMILIES = ["opt", "t5", "gpt2", "llama", "bart"]
TEXTS = ["a cat", "a red apple to the left of a cat and a dog", "two dogs on a blue ground"]


def test_its_repr_names_source_model_size_and_device() -> None:
    model = reader()
    count = sum(parameter.numel() for parameter in model.network.parameters())
    assert repr(model) == f"Blip2({model.source!r}: ImageTextModel, {count:,} parameters, on cpu)"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_of_unequal_prompts_equals_one_by_one(family: str, beams: int) -> None:
    model = writer(family)
    options = {"num_beams": beams, "max_new_tokens": 6, "repetition_penalty": 1.3}
    network, processor = model.network, model.processor
    assert processor.language_tokenizer is not None
    free = (
        network.generate(  # a token that some row says early becomes the end token, so that rows end at their own time
            processor.images(shown()), *processor.prompts(QUESTIONS), GREEDY, eos_token_id=2, pad_token_id=0
        )
    )
    processor.language_tokenizer.end_id = int(free[0, -3])
    together = model.answer(shown(), QUESTIONS, **options)
    alone = [model.answer([p], [q], **options)[0] for p, q in zip(shown(), QUESTIONS, strict=True)]
    assert together == alone
    assert model.answer(shown(), QUESTIONS, batch_size=3, **options) == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize("family", ["opt", "gpt2", "llama"])
def test_greedy_search_takes_the_likeliest_token_after_queries_prompt_and_generated_tokens(family: str) -> None:
    model = writer(family, prompt="a photo of")
    network, tokenizer = model.network, model.processor.language_tokenizer
    assert tokenizer is not None and hasattr(network, "soft_prompt")
    with torch.no_grad():
        read = network.soft_prompt(model.processor.images(shown()[:1]))
        words = network.language_model.get_input_embeddings()
        ids = tokenizer.prompt_ids("a photo of")
        generated: list[int] = []
        for step in range(5):
            states = torch.cat([read, words(torch.tensor([ids + generated]))], dim=1)
            logits = network.language_model(inputs_embeds=states, use_cache=False).logits[0, -1]
            if step == 0:
                logits[tokenizer.end_id] = -torch.inf  # min_new_tokens is 1
            generated.append(int(logits.argmax()))
    expected = tokenizer.decode(torch.tensor([generated]))
    assert model.caption(shown()[:1], num_beams=1, max_new_tokens=5) == expected
    assert not expected[0].startswith("a photo of")


@pytest.mark.parametrize("family", ["opt", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_a_language_model_brings_along_changes_nothing(family: str, beams: int) -> None:
    model = writer(family)
    expected = model.caption(shown(), num_beams=beams, max_new_tokens=8)
    language_model = model.network.language_model  # type: ignore[union-attr]
    first = model.processor.language_tokenizer.text_ids(expected[0])[0]  # type: ignore[union-attr]
    own = GenerationConfig(
        do_sample=True, temperature=3.0, no_repeat_ngram_size=1, forced_eos_token_id=7, suppress_tokens=[first],
        early_stopping=True, length_penalty=9.0, max_length=3, num_return_sequences=2, decoder_start_token_id=5,
    )  # fmt: skip
    language_model.generation_config = own
    assert model.caption(shown(), num_beams=beams, max_new_tokens=8) == expected
    assert language_model.generation_config is own


def test_sampling_follows_its_seed_and_leaves_torchs_own_alone() -> None:
    model = writer("opt")
    sample = functools.partial(model.caption, shown(), do_sample=True, max_new_tokens=8)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = sample(seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert sample(seed=1) == first != sample(seed=2)
    narrow = sample(seed=1, top_p=1e-6, repetition_penalty=1.2)
    assert narrow == model.caption(shown(), num_beams=1, max_new_tokens=8, repetition_penalty=1.2)


def test_whole_numbers_are_taken_for_any_option() -> None:
    model = writer("opt")
    (image, *_), sampled = shown(), {"do_sample": True, "max_new_tokens": 8, "seed": 1}
    for name, most in (("repetition_penalty", 2), ("temperature", 2), ("top_p", 1)):
        whole, fraction = sampled | {name: most}, sampled | {name: float(most)}
        assert model.caption(image, **whole) == model.caption(image, **fraction)
        assert list(model.chat(image, [], "why?", stream=True, **whole)) == list(
            model.chat(image, [], "why?", stream=True, **fraction)
        )
    assert model.caption(image, length_penalty=2) == model.caption(image, length_penalty=2.0)


def test_options_reach_the_search() -> None:
    model = writer("opt")
    tokenizer = model.processor.language_tokenizer
    assert tokenizer is not None

    def generated(**options: Any) -> list[list[int]]:
        seen: list[torch.Tensor] = []
        tokenizer.decode = lambda ids: seen.append(ids) or [""] * len(ids)  # type: ignore[func-returns-value, method-assign]
        model.caption(shown(), **options)
        del tokenizer.decode
        rows = [[*row, tokenizer.end_id] for row in seen[0].tolist()]
        return [row[: row.index(tokenizer.end_id)] for row in rows]

    greedy = functools.partial(generated, num_beams=1, max_new_tokens=12)
    plain = greedy()
    assert [len(row) for row in plain] == [12] * 4 and any(len(set(row)) < 12 for row in plain)
    assert all(len(set(row)) == 12 for row in greedy(repetition_penalty=1e4))
    assert generated(num_beams=1, max_new_tokens=3) == [row[:3] for row in plain]
    tokenizer.end_id = plain[1][2]
    first = plain[1].index(tokenizer.end_id)
    assert greedy()[1] == plain[1][:first]
    assert len(greedy(min_new_tokens=first + 2)[1]) >= first + 2
    short, long = (sum(map(len, generated(num_beams=5, max_new_tokens=12, length_penalty=x))) for x in (-5.0, 5.0))
    assert short < long


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": 3}, "generation option 'max_tokens' is unknown; did you mean max_new_tokens"),
        ({"temperature": 0.5}, "temperature 0.5 changes nothing without do_sample=True"),
        ({"num_beams": 1, "length_penalty": 2.0}, "length_penalty 2.0 changes nothing without num_beams of 2 or more"),
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"max_new_tokens": "many"}, "a generation option is no number"),
        ({"length_penalty": "long"}, "a generation option is no number"),
        ({"do_sample": True, "top_p": 0.0}, "top_p must be in"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"prompt": "  "}, "prompt '  ' is blank"),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        writer("opt").caption(shown(), **options)


def test_none_is_the_models_own_prompt_and_blanks_around_one_are_dropped() -> None:
    model = writer("opt", prompt="a photo of")
    own = model.caption(shown(), max_new_tokens=4)
    assert own == model.caption(shown(), prompt=" a photo of ", max_new_tokens=4)
    assert own != model.caption(shown(), prompt="", max_new_tokens=4)


def test_questions_are_put_as_in_the_paper() -> None:
    for family, form in (("opt", "Question: {} Answer:"), ("t5", "Question: {} Short answer:")):
        model = writer(family)
        options = {"num_beams": 5, "max_new_tokens": 10, "length_penalty": -1.0}
        expected = model.caption(shown(), prompt=form.replace("{}", "what is it?"), **options)
        assert model.answer(shown(), "What (is) it?") == expected
        assert model.answer(shown(), ["what is it?"] * 4, prompt=form, clean=False) == expected
    assert model.answer(shown(), "What is it?", clean=False) != expected
    for questions, words in (
        (["what?"], "4 images, but 1 questions"),
        ("?!", None),
        ("!", "is empty"),
        (" ", "is empty"),
    ):
        if words is not None:
            with pytest.raises(ConfigError, match=words):
                model.answer(shown(), questions)
    with pytest.raises(ConfigError, match=r"has no {} for the question"):
        model.answer(shown(), "what?", prompt="Question:")


def test_a_conversation_is_one_prompt() -> None:
    model = writer("opt")
    prompt = "Question: what is it? Answer: a cat Question: is it red? Answer:"
    expected = model.caption(shown()[0], prompt=prompt)[0].split("Question:")[0].strip()
    assert model.chat(shown()[0], [("what is it?", "a cat")], "is it red?") == expected
    for turns in ([{"role": "user", "content": "what is it?"}], ["ab"], [("what is it?", None)]):
        with pytest.raises(ConfigError, match=r"is a pair \(question, answer\), not"):
            model.chat(shown()[0], turns, "is it red?")
    with pytest.raises(ConfigError, match="a question is empty"):
        model.chat(shown()[0], [], " ")
    with pytest.raises(PromptTooLong, match=r"takes .* tokens, but beside 4 queries and 30 new tokens .* its 64"):
        model.chat(shown()[0], [("what is it?", "a cat and a dog " * 6)], "is it red?")


@pytest.mark.parametrize("family", ["opt", "gpt2", "bart"])
def test_the_longest_prompt_is_read_and_the_next_refused_before_a_image_is_opened(family: str) -> None:
    model = writer(family)
    network, tokenizer = model.network, model.processor.language_tokenizer
    assert tokenizer is not None and hasattr(network, "is_encoder_decoder")
    words = "a"
    while 4 + len(tokenizer.prompt_ids(f"{words} a")) + (0 if network.is_encoder_decoder else 5) <= 64:
        words += " a"
    assert len(model.caption(shown(), prompt=words, max_new_tokens=5)) == 4
    with pytest.raises(PromptTooLong):
        model.caption(["there is no such file"], prompt=f"{words} a", max_new_tokens=5)
    assert len(writer("t5").caption(shown(), prompt=words * 3, max_new_tokens=5)) == 4  # T5 has no limit


def test_each_task_names_the_model_that_it_needs() -> None:
    stage1, stage2 = reader(), writer("opt")
    for call in (
        lambda: stage1.answer(shown(), "what?"),
        lambda: stage1.chat(shown()[0], [], "what?"),
    ):
        with pytest.raises(ConfigError, match=r"needs a generative model \(stage 2\), but tiny is an image-text model"):
            call()
    for call in (lambda: stage2.match(shown(), TEXTS), lambda: stage2.embed(texts=TEXTS)):
        with pytest.raises(ConfigError, match=r"needs an image-text model \(stage 1\), but it is a generative model"):
            call()


@pytest.mark.slow
def test_captions_of_stage_1_are_those_of_its_q_former() -> None:
    """`[DEC]`, the prompt, new tokens up to `[SEP]`; 3 beams and 9 to 29 tokens as in the released code."""
    model = reader()
    network, tokenizer = model.network, model.processor.text_tokenizer
    assert isinstance(network, ImageTextModel)
    pixels = model.processor.images(shown())
    for prompt, words in (("", []), ("A photo of", tokenizer("a photo of", add_special_tokens=False).input_ids)):
        start = torch.tensor([[tokenizer.bos_token_id, *words]] * 4)
        options = GenerationOptions(num_beams=3, max_new_tokens=29, min_new_tokens=9)
        ids = network.generate(pixels, start, options, eos_token_id=tokenizer.sep_token_id, pad_token_id=0)
        expected = [decode_word_pieces(tokenizer, row) for row in ids.tolist()]
        for size in (1, 3, 4):
            assert model.caption(shown(), prompt=prompt, batch_size=size) == expected
        assert len(words) == (3 if words else 0) and all(expected)
    assert model.caption(shown()[0]) == model.caption(shown())[:1]


def test_options_of_stage_1_captions() -> None:
    model = reader()
    tokenizer = model.processor.text_tokenizer
    short = model.caption(shown(), max_new_tokens=4)  # the least number of tokens gives way
    assert all(len(tokenizer(text, add_special_tokens=False).input_ids) <= 4 for text in short)
    drawn = [model.caption(shown(), do_sample=True, temperature=3.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert model.caption(shown(), num_beams=1) != model.caption(shown(), num_beams=1, repetition_penalty=9.0)
    with pytest.raises(ConfigError, match="min_new_tokens must be in 0"):
        model.caption(shown(), max_new_tokens=4, min_new_tokens=5)
    with pytest.raises(ConfigError, match=r"'\.\.\.' is empty once cleaned"):
        model.caption(["there is no such file"], prompt="...")
    room = " ".join(["cat"] * 11)  # with [DEC] and 29 new tokens, of which the last is not read: 40 positions
    assert len(model.caption(shown(), prompt=room)) == 4
    with pytest.raises(PromptTooLong, match=r"takes 13 tokens with \[DEC\], .* room for 12 of its 40"):
        model.caption(["there is no such file"], prompt=f"{room} cat")


@pytest.mark.slow
def test_a_drawn_prediction_head_does_not_describe(tmp_path: Path) -> None:
    """transformers' `Blip2ForImageTextRetrieval` has none, so that what is loaded here would be drawn at random."""
    source = save_theirs(their_model("retrieval"), "retrieval", tmp_path / "theirs")
    model, _ = load_pretrained(source)
    assert model.match(shown(), TEXTS).itm.shape == (4, 3)
    convert([str(source), "--to", str(tmp_path / "converted")])
    for opened in (model, load_pretrained(tmp_path / "converted")[0]):
        with pytest.raises(ConfigError, match="has no prediction head for its Q-Former, so it cannot describe"):
            opened.caption(shown())
    own = write_huggingface(tmp_path / "own", *our_model("retrieval"))  # which lies beside the weights
    assert len(load_pretrained(own)[0].caption(shown())) == 4


def test_wordpieces_become_text_as_people_write_it() -> None:
    tokenizer = reader().processor.text_tokenizer
    ids = tokenizer("a cat's house, isn't it?").input_ids
    assert decode_word_pieces(tokenizer, [tokenizer.bos_token_id, *ids[1:], 0, 0]) == "a cat's house, isn't it?"


def test_scores_are_those_of_training_one_pair_at_a_time() -> None:
    model = reader()
    itc, itm = model.match(shown(), TEXTS)
    assert itc.shape == itm.shape == (4, 3) and itc.std() > 1e-3 and itm.std() > 1e-3
    network, processor = model.network, model.processor
    with torch.no_grad():
        for n, image in enumerate(shown()):
            images = network.encode_image(processor.images([image]))  # type: ignore[operator]
            for m, text in enumerate(TEXTS):
                ids, mask = processor.texts([text])
                cosine = (images.image_features[0] @ network.encode_text(ids, mask)[0]).max()  # type: ignore[operator]
                logits = network.match([images.image_kv], ids, mask)[0]  # type: ignore[operator]
                torch.testing.assert_close(itc[n, m], cosine, rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(itm[n, m], logits.softmax(0)[1], rtol=1e-5, atol=1e-6)


def test_scores_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reader()
    whole = model.match(shown(), TEXTS)
    monkeypatch.setattr("blip2_train.evaluation.embedding.PAIRS_AT_ONCE", 2)
    monkeypatch.setattr("blip2_train.evaluation.embedding.TEXTS_AT_ONCE", 2)
    for one, other in zip(whole, model.match(shown(), TEXTS, batch_size=3), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert model.match(shown(), []).itc.shape == (4, 0) and model.match([], TEXTS).itm.shape == (0, 3)
    assert torch.equal(model.match(shown()[0], "a cat").itc, model.match(shown()[:1], ["a cat"]).itc)


def test_features_have_their_shapes_and_feed_the_heads() -> None:
    model = reader()
    features = model.embed(shown(3), TEXTS, batch_size=2)
    shapes = {name: tuple(value.shape) for name, value in features.items()}
    assert shapes == {
        "image_states": (3, 4, 16), "image_features": (3, 4, 8), "text_states": (3, 16, 16), "text_mask": (3, 16),
        "text_features": (3, 8), "multimodal_states": (3, 4, 16),
    }  # fmt: skip
    network = model.network
    assert features["text_mask"].dtype == torch.bool and not features["text_states"][~features["text_mask"]].any()
    with torch.no_grad():
        projected = F.normalize(network.text_projection(features["text_states"][:, 0]), dim=-1)  # type: ignore[operator]
        torch.testing.assert_close(projected, features["text_features"])
        projected = F.normalize(network.vision_projection(features["image_states"]), dim=-1)  # type: ignore[operator]
        torch.testing.assert_close(projected, features["image_features"])
        matched = network.itm_head(features["multimodal_states"]).mean(1).softmax(1)[:, 1]  # type: ignore[operator]
    itc, itm = model.match(shown(3), TEXTS)
    torch.testing.assert_close(matched, itm.diagonal(), rtol=1e-5, atol=1e-6)
    best = (features["image_features"] @ features["text_features"].T).amax(dim=1)
    torch.testing.assert_close(best, itc, rtol=1e-5, atol=1e-6)


def test_features_of_images_or_texts_alone_are_the_same() -> None:
    model = reader()
    both, images, texts = model.embed(shown(3), TEXTS), model.embed(shown(3)), model.embed(texts=TEXTS)
    assert both.keys() == images.keys() | texts.keys() | {"multimodal_states"}
    for name, value in (images | texts).items():
        torch.testing.assert_close(value, both[name], rtol=1e-5, atol=1e-6)
    one = model.embed(shown(3), "a cat")
    torch.testing.assert_close(one["multimodal_states"], model.embed(shown(3), ["a cat"] * 3)["multimodal_states"])
    (one["image_features"] * torch.ones(8, requires_grad=True)).sum().backward()  # they may be trained on


def test_a_generative_model_embeds_images() -> None:
    model = writer("opt")
    features = model.embed(shown(3), batch_size=2)
    assert {name: tuple(value.shape) for name, value in features.items()} == {
        "query_states": (3, 4, 16), "soft_prompt": (3, 4, 32),
    }  # fmt: skip
    with torch.no_grad():
        prompt = model.network.soft_prompt(model.processor.images(shown(3)))  # type: ignore[operator]
    torch.testing.assert_close(features["soft_prompt"], prompt)


@pytest.mark.parametrize(
    ("images", "texts"), [(None, None), ([], None), (3, TEXTS[:2]), (1, TEXTS), (None, [])], ids=str
)
def test_what_are_no_pairs_is_refused(images: Any, texts: Any) -> None:
    given = shown(images) if isinstance(images, int) else images
    with pytest.raises(ConfigError, match="are no pairs"):
        reader().embed(given, texts)


def test_broken_input_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    for model in (reader(), writer("opt")):
        for call in (model.embed, model.caption if model.source == "it" else lambda p: reader().match(p, TEXTS)):
            with pytest.raises(ShardError, match=r"a\.png is no image"):
                call([tmp_path / "a.png"])
    with pytest.raises(Blip2TrainError, match="text '!!' is empty"):
        reader().match(shown(), ["a cat", "!!"])


@pytest.mark.parametrize(("family", "dtype"), [("opt", "float16"), ("opt", "bfloat16"), ("t5", "bfloat16")])
def test_sixteen_bit_models_write_under_autocast_and_without(family: str, dtype: str) -> None:
    model = writer(family, dtype=dtype, vision={"dtype": dtype})
    options = {"num_beams": 1, "max_new_tokens": 4}
    plain = model.caption(shown(), **options)
    with torch.autocast("cpu", getattr(torch, dtype)):
        rounded = model.caption(shown(), **options)
        assert set(model.answer(shown(), "what?", candidates=["a cat", "two"])) <= {"a cat", "two"}
    assert all(plain) and all(rounded)


def test_a_model_that_is_called_as_those_of_transformers_names_the_method() -> None:
    with pytest.raises(ConfigError, match=r"match\(images, texts\) gives .*generate\(\*\*inputs\)"):
        writer("opt")(pixel_values=torch.zeros(1, 3, 4, 4), use_image_text_matching_head=True)
