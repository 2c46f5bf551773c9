"""A conversation whose beginning was read before goes on as if it were read again."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_writer import shown, writer
from web_server import LOOPBACK, content, serving

from blip2_train.data.storage.web import WebLimits
from blip2_train.evaluation.conversation import Conversation
from blip2_train.evaluation.inference import Blip2
from blip2_train.models.prompt_cache import DecoderOnlyPrompts

ROUNDS = ["what is it?", "is it red?", "how many?", "why not?"]
ARCHITECTURE = {"max_position_embeddings": 256}


def talking(family: str = "opt", **options: Any) -> Blip2:
    model = writer(family, **options)
    model.network.double()
    return model


def pixels(model: Blip2, number: int = 0) -> torch.Tensor:
    return model.processor.image(shown()[number]).double()


def answers(model: Blip2, image: torch.Tensor, again: bool, **options: Any) -> list[str]:
    """Each message after the rounds before it; with `again`, nothing of those is kept."""
    rounds: list[tuple[str, str]] = []
    for message in ROUNDS[:3]:
        if again:
            model._conversation = None
        answer = model.chat(image, rounds, message, max_new_tokens=6, **options)
        rounds.append((message, answer))
    return [answer for _, answer in rounds]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["opt", "t5", "llama", "gpt2", "bart"])
@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"do_sample": True, "seed": 5}], ids=str)
def test_it_answers_as_if_all_were_read_again(family: str, options: dict[str, Any]) -> None:
    model = talking(family)
    kept, anew = (answers(model, pixels(model), again, **options) for again in (False, True))
    assert kept == anew and len(set(kept)) > 1


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_only_what_is_new_is_read(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = talking(family)
    tokenizer: Any = model.processor.language_tokenizer
    read: list[tuple[int, int]] = []
    extended = DecoderOnlyPrompts.extended

    def counted(self: Any, kept: int, ids: torch.Tensor) -> Any:
        read.append((kept, ids.shape[1]))
        return extended(self, kept, ids)

    monkeypatch.setattr(DecoderOnlyPrompts, "extended", counted)
    images: list[int] = []
    model.network.vision_model.register_forward_hook(lambda *_: images.append(1))
    image = pixels(model)
    first = model.chat(image, [], ROUNDS[0], max_new_tokens=4)
    second = model.chat(image, [(ROUNDS[0], first)], ROUNDS[1], max_new_tokens=4)
    texts = [
        f"Question: {ROUNDS[0]} Answer:",
        " ".join(f"Question: {ROUNDS[0]} Answer: {first} Question: {ROUNDS[1]} Answer:".split()),
    ]
    lengths = [len(tokenizer.prompt_ids(text)) for text in texts]
    assert len(images) == 1 and read == [(4 + lengths[0], lengths[1] - lengths[0])]

    assert model.chat(image, [(ROUNDS[0], first)], ROUNDS[1], max_new_tokens=4) == second
    assert len(images) == 1 and len(read) == 1  # the same message again
    model.chat(image, [], ROUNDS[0], max_new_tokens=4)  # back: one token is read, for what follows it
    assert len(images) == 1 and read[1:] == [(4 + lengths[0] - 1, 1)]
    model.chat(image, [], ROUNDS[2], max_new_tokens=4)  # another beginning
    assert len(images) == 1 and read[2][0] < 4 + lengths[0]


def test_an_address_is_fetched_when_its_conversation_begins(tmp_path: Path) -> None:
    model = talking()
    for number, image in enumerate(shown(2)):
        image.save(tmp_path / f"{number}.png")
    files = [(tmp_path / f"{number}.png").read_bytes() for number in range(2)]
    web = WebLimits(private_networks=(LOOPBACK,))
    model = model.reading(dataclasses.replace(model.processor, web=web))
    with serving({f"/{number}.png": content(file) for number, file in enumerate(files)}) as server:
        first, second = (f"http://127.0.0.1:{server.port}/{number}.png" for number in range(2))
        rounds: list[tuple[str, str]] = []
        for message in ROUNDS:
            rounds.append((message, model.chat(first, rounds, message, max_new_tokens=4)))
        assert len(server.requests) == 1
        kept = [answer for _, answer in rounds]
        assert kept == [model.chat(files[0], rounds[:n], ROUNDS[n], max_new_tokens=4) for n in range(4)]
        model.chat(first, [], ROUNDS[0], max_new_tokens=4)
        assert len(server.requests) == 2, "a new conversation is about what is there now"
        model.chat(second, rounds[:1], ROUNDS[1], max_new_tokens=4)
        model.chat(first, rounds[:1], ROUNDS[1], max_new_tokens=4)
        assert len(server.requests) == 4, "another address is another image"


@pytest.mark.slow
def test_any_order_of_conversations_gives_the_same_answers() -> None:
    model = talking("opt")
    cases = [
        (pixels(model, number), [(ROUNDS[0], "a cat")] * rounds, message)
        for number, rounds, message in itertools.product(range(2), range(3), ROUNDS[1:3])
    ]
    expected = []
    for image, rounds, message in cases:
        model._conversation = None
        expected.append(model.chat(image, rounds, message, max_new_tokens=5))
    order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(0)).tolist()
    for index in order + order[::-1]:
        image, rounds, message = cases[index]
        assert model.chat(image, rounds, message, max_new_tokens=5) == expected[index]
    assert len(set(expected)) > 3


def test_other_weights_are_noticed() -> None:
    model = talking("opt")
    image = pixels(model)
    conversation = Conversation(model.generative("chat"), model.processor, image)
    network = model.generative("chat")
    assert conversation.is_about(network, image) and not conversation.is_about(network, pixels(model, 1))
    with torch.no_grad():
        network.query_tokens.add_(1.0)
    assert not conversation.is_about(network, image)
    conversation = Conversation(network, model.processor, image)
    network.float()
    assert not conversation.is_about(network, image)


def test_an_image_that_was_changed_in_place_is_another() -> None:
    model = talking()
    image, other = pixels(model), pixels(model, 1)
    first = model.chat(image, [], ROUNDS[0], max_new_tokens=6)
    image.copy_(other)
    assert model.chat(image, [], ROUNDS[0], max_new_tokens=6) == talking().chat(other, [], ROUNDS[0], max_new_tokens=6)
    conversation = model._conversation
    assert conversation is not None and not conversation.is_about(model.network, pixels(model).to("meta"))
    assert first


def test_weights_that_were_replaced_are_noticed() -> None:
    model = talking()
    image = pixels(model)
    model.chat(image, [], ROUNDS[0], max_new_tokens=3)
    conversation = model._conversation
    assert conversation is not None and conversation.is_about(model.network, image)
    state = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    model.network.load_state_dict(state, assign=True)
    assert not conversation.is_about(model.network, image)


def test_later_rounds_run_in_the_language_models_own_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast, as on a GPU: a 16-bit language model stays outside of it in every round."""
    model = talking()
    model.network.float()
    model.network.language_model.to(torch.bfloat16)
    autocast = "blip2_train.evaluation.inference.suitable_autocast"
    monkeypatch.setattr(autocast, lambda network: torch.autocast("cpu", dtype=torch.bfloat16))
    seen: list[bool] = []
    head: Any = model.network.language_model.get_output_embeddings()
    head.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    answer = model.chat(pixels(model).float(), [], ROUNDS[0], max_new_tokens=3, num_beams=1)
    model.chat(pixels(model).float(), [(ROUNDS[0], answer)], ROUNDS[1], max_new_tokens=3, num_beams=1)
    assert len(seen) > 3 and not any(seen)
