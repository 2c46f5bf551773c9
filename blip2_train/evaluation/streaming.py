"""A text part by part, while it is generated; the parts joined are the text that the same call gives as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import one_text
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.language_model import own_precision

Value = TypeVar("Value")
Decode = Callable[[Tensor], str]


def streaming_defaults(stream: bool) -> dict[str, Any]:
    """Defaults of a text that is given while it is generated: no beams, which find it only at its end."""
    return {"num_beams": 1} if stream else {}


def check_streams(options: GenerationOptions, images: int) -> None:
    """Refuse what cannot be given part by part.

    Raises:
        ConfigError: if there are several texts, or beams.
    """
    one_text(options, "a stream")
    if images != 1:
        raise ConfigError(f"stream=True gives the text of one image and question, got {images}; leave it out, or loop")
    if options.num_beams > 1:
        raise ConfigError(
            f"num_beams {options.num_beams} finds its text only at the end; leave out one of num_beams and stream"
        )


def text_parts(
    steps: Iterator[Tensor],
    decode: Decode,
    network: Blip2Model,
    seed: int | None,
    autocast: Callable[[Blip2Model], AbstractContextManager[Any]],
    *,
    whole_words: bool = False,
    until: str = "",
) -> Iterator[str]:
    """The parts of a text.

    Args:
        steps: The ids so far, after each new token.
        decode: Makes a text of them.
        network: The model; nothing of it is computed, and no random number drawn, but when a part is asked for.
        seed: Seed of sampling, None = torch's own state.
        autocast: Precision of the model's parts.
        whole_words: Hold back the last word: a later token may change the blank before it.
        until: Where the text ends; what may be its beginning is held back.
    """
    device = network.query_tokens.device
    randomness = _Randomness(seed, device)

    @contextmanager
    def inside() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(randomness.continued())
            stack.enter_context(autocast(network))
            if network.language_config is not None:
                stack.enter_context(own_precision(network.language_model, device))
            yield

    def texts() -> Iterator[str]:
        for ids in resumed(steps, inside):
            text = decode(ids)
            if until and until in text:
                yield text.split(until)[0].strip()
                return
            yield text

    return parts(texts(), lambda text: _settled(text, whole_words, until))


def parts(texts: Iterable[str], settled: Callable[[str], str]) -> Iterator[str]:
    """What is new in a text that grows, each time.

    Args:
        texts: The text so far.
        settled: The beginning of it that what follows leaves as it is.

    Example:
        >>> list(parts(["a", "a re", "a red", "a red cat"], lambda text: text.rpartition(" ")[0]))
        ['a', ' red', ' cat']
    """
    given = text = ""
    for text in texts:
        if (start := settled(text)).startswith(given) and len(start) > len(given):
            yield start[len(given) :]
            given = start
    if len(text) > len(given):
        yield text[len(given) :]


def resumed(values: Iterator[Value], context: Callable[[], AbstractContextManager[Any]]) -> Iterator[Value]:
    """The same values, each made inside a context of its own: what is between them, another's, is outside of it."""
    while True:
        with context():
            try:
                value = next(values)
            except StopIteration:
                return
        yield value


def _settled(text: str, whole_words: bool, until: str) -> str:
    start = text.rpartition(" ")[0] if whole_words else text.rstrip("\ufffd")  # half a character, so far
    ends = (start[:-size] for size in range(min(len(until), len(start)), 0, -1) if start.endswith(until[:size]))
    return next(ends, start).rstrip()


class _Randomness:
    """Random numbers from a seed that go on where they stopped; torch's own state stays as it is."""

    def __init__(self, seed: int | None, device: torch.device) -> None:
        self._seed, self._device = seed, device
        self._cpu: Tensor | None = None
        self._cuda: Tensor | None = None

    @contextmanager
    def continued(self) -> Iterator[None]:
        """Inside, the numbers from the seed on."""
        if self._seed is None:
            yield
            return
        on_gpu = self._device.type == "cuda"
        with torch.random.fork_rng([self._device] if on_gpu else []):
            if self._cpu is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._cpu)
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda, self._device)
            yield
            self._cpu = torch.get_rng_state()
            self._cuda = torch.cuda.get_rng_state(self._device) if on_gpu else None
