"""Generates text token by token from a function that returns logits: greedy, by beam search, or by sampling.

The same search as transformers' `generate`, which reads a prompt again for each beam, and whose caches are bound to its
own models. Shape letters: B texts that are started, N beams or samples of each, R = B * N rows, t tokens so far, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blip2_train.models.configs import GenerationOptions

if TYPE_CHECKING:
    from transformers import LogitsProcessor, LogitsProcessorList

Step = Callable[[Tensor, Tensor | None], Tensor]
"""From new tokens `(R, t)`, t >= 1, to the logits `(R, V)` of what follows. Row r goes on from row `origin[r]` of the
step before (of the first logits, before the first step), whose tokens it repeats; None = from row r. After the first
step, the rows of a text only go on from rows of the same text."""
AllDone = Callable[[Tensor], bool]
"""From whether all texts of this process are at their ends, a bool `()`, to whether to stop."""
_NEVER = -1e9


def generate_tokens(
    first: Tensor,
    step: Step,
    options: GenerationOptions,
    *,
    ends: Sequence[int],
    pad: int,
    uniforms: Tensor | None = None,
    front: Sequence[int] = (),
    all_done: AllDone = bool,
) -> Tensor:
    """Continue B texts.

    Args:
        first: `(B, V)`: logits of the first new token.
        step: Where the logits of the others come from.
        options: Search or sampling. Only new tokens count as length, and only they and `front` as repetition.
        ends: Ids of the tokens at which a text ends.
        pad: Id of what stands behind the end.
        uniforms: `(B, N, max_new_tokens)`, in [0, 1): with `do_sample`, N texts of each are sampled with these numbers;
            None = one text of each, sampled with torch's random state.
        front: Ids that stand in front of each text.
        all_done: Processes that share a model step until the texts of all of them are at their ends.

    Returns:
        `(B * N, ≤ max_new_tokens)`, int64, ends included, text by text; without `uniforms`, N is
        `options.num_return_sequences`.
    """
    search = _search(first, step, options, ends, pad, uniforms, front, all_done)
    if options.num_beams > 1 and uniforms is None:
        return _beams(first, search)
    return _one_by_one(first, search, options.num_return_sequences if uniforms is None else uniforms.shape[1])


def stream_tokens(
    first: Tensor, step: Step, options: GenerationOptions, *, ends: Sequence[int], pad: int, front: Sequence[int] = ()
) -> Iterator[Tensor]:
    """The tokens so far, `(B, t)`, after each new one: those that `generate_tokens` finds with the same arguments.

    Args:
        first: As for `generate_tokens`.
        step: The same.
        options: Without beams.
        ends: As for `generate_tokens`.
        pad: The same.
        front: The same.
    """
    return _stepwise(first, _search(first, step, options, ends, pad, None, front, bool), 1)


def _search(
    first: Tensor,
    step: Step,
    options: GenerationOptions,
    ends: Sequence[int],
    pad: int,
    uniforms: Tensor | None,
    front: Sequence[int],
    all_done: AllDone,
) -> _Search:
    """What all kinds of search have in common."""
    device = first.device
    return _Search(
        step=step,
        processors=_processors(options, ends, len(front), uniforms, str(device)),
        options=options,
        ends=torch.tensor(list(ends), dtype=torch.int64, device=device),
        pad=pad,
        front=torch.tensor([list(front)], dtype=torch.int64, device=device),
        all_done=all_done,
        draws=options.do_sample and uniforms is None,
    )


@dataclass(frozen=True, kw_only=True)
class _Search:
    step: Step
    processors: Any
    options: GenerationOptions
    ends: Tensor
    pad: int
    front: Tensor
    all_done: AllDone
    draws: bool
    """Whether tokens are drawn with torch's random state."""

    def process(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """Scores `(R, V)` of what may follow `(R, t)`."""
        changed: Tensor = self.processors(torch.cat([self.front.expand(len(tokens), -1), tokens], dim=1), scores)
        return changed


def _processors(
    options: GenerationOptions, ends: Sequence[int], front: int, uniforms: Tensor | None, device: str
) -> LogitsProcessorList:
    """What changes scores before a token is chosen, in the order of transformers."""
    from transformers import (  # slow to import; a model that only trains needs none of it
        LogitsProcessorList,
        MinNewTokensLengthLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    from blip2_train.models.nucleus_sampling import NucleusSampling

    processors: list[LogitsProcessor] = []
    if options.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.min_new_tokens > 0:
        processors.append(MinNewTokensLengthLogitsProcessor(front, options.min_new_tokens, list(ends), device=device))
    least = 1 if options.num_beams == 1 else len(ends) + 1  # so that beams can go on where the likeliest is an end
    top = [TopKLogitsWarper(options.top_k, min_tokens_to_keep=least)] if options.do_sample and options.top_k else []
    if uniforms is not None:
        processors += top
        processors.append(NucleusSampling(uniforms.flatten(0, 1), options.top_p, options.temperature))
    elif options.do_sample:
        processors += [
            TemperatureLogitsWarper(options.temperature),
            *top,
            TopPLogitsWarper(options.top_p, min_tokens_to_keep=least),
        ]
    return LogitsProcessorList(processors)


def _one_by_one(first: Tensor, search: _Search, copies: int) -> Tensor:
    """Greedy search, or sampling from one beam; `copies` texts of each."""
    for so_far in _stepwise(first, search, copies):
        tokens = so_far
    open_before = torch.isin(tokens, search.ends).cumsum(dim=1) == 0
    return tokens[:, : 1 + int(open_before[:, :-1].sum(dim=1).max())]  # without what other processes waited for


def _stepwise(first: Tensor, search: _Search, copies: int) -> Iterator[Tensor]:
    """The tokens so far, `(B * copies, t)`."""
    options, device = search.options, first.device
    origin: Tensor | None = None
    if copies > 1:
        origin = torch.arange(len(first), device=device).repeat_interleave(copies)
        first = first.repeat_interleave(copies, dim=0)
    logits, tokens = first, torch.empty(len(first), 0, dtype=torch.int64, device=device)
    done = torch.zeros(len(first), dtype=torch.bool, device=device)
    for length in range(1, options.max_new_tokens + 1):
        scores = search.process(tokens, _wide(logits))
        chosen = torch.multinomial(scores.softmax(dim=1), 1)[:, 0] if search.draws else scores.argmax(dim=1)
        chosen = torch.where(done, search.pad, chosen)
        tokens, done = torch.cat([tokens, chosen[:, None]], dim=1), done | torch.isin(chosen, search.ends)
        yield tokens
        if length == options.max_new_tokens or search.all_done(done.all()):
            break
        logits, origin = search.step(tokens, origin), None


def _beams(first: Tensor, search: _Search) -> Tensor:
    """The best of N beams, `num_return_sequences` of them.

    Scores are sums of log-probabilities, divided by length ** `length_penalty` at an end.

    Source: beam search of transformers with `early_stopping=False`: a text of which N ends were found is finished once
    its best open beam, at its present length, scores no more than the worst of them.
    """
    options, pad, device = search.options, search.pad, first.device
    texts, beams = len(first), options.num_beams
    kept, logits = max(2, 1 + len(search.ends)) * beams, first.repeat_interleave(beams, dim=0)
    rows = torch.arange(texts, device=device)[:, None]
    origin = rows.expand(texts, beams)  # of the first step, whose rows are the texts
    tokens = torch.empty(texts, beams, 0, dtype=torch.int64, device=device)
    scores = _wide(logits).new_zeros(texts, beams)
    scores[:, 1:] = _NEVER  # all beams are the same at first
    ended, ended_scores = tokens.new_full((texts, beams, options.max_new_tokens), pad), torch.full_like(scores, _NEVER)
    lengths = torch.zeros_like(ended_scores, dtype=torch.int64)
    open_texts = torch.ones(texts, 1, dtype=torch.bool, device=device)
    for length in range(1, options.max_new_tokens + 1):
        steps = search.process(tokens.flatten(0, 1), _wide(logits).log_softmax(dim=1)).unflatten(0, (texts, beams))
        totals = (steps + scores[:, :, None]).flatten(1)
        if options.do_sample:
            choices = torch.multinomial(totals.softmax(dim=1).clamp_min(1e-30), kept)
            best, order = totals.gather(1, choices).sort(dim=1, descending=True)
            choices = choices.gather(1, order)
        else:
            best, choices = totals.topk(kept, dim=1)
        beam, token = choices // steps.shape[2], choices % steps.shape[2]
        longer = torch.cat([tokens[rows, beam], token[:, :, None]], dim=2)
        at_end = torch.isin(token, search.ends) | (length == options.max_new_tokens)

        final = best / length**options.length_penalty
        counts = at_end & open_texts & (torch.arange(kept, device=device) < beams)  # the others only go on
        final = torch.where(counts, final, _NEVER)
        padded = torch.nn.functional.pad(longer, (0, options.max_new_tokens - length), value=pad)
        ended_scores, chosen_rows = torch.cat([ended_scores, final], dim=1).topk(beams, dim=1)
        ended = torch.cat([ended, padded], dim=1)[rows, chosen_rows]
        lengths = torch.cat([lengths, torch.full_like(token, length)], dim=1)[rows, chosen_rows]

        scores, chosen_rows = torch.where(at_end, best + _NEVER, best).topk(beams, dim=1)
        tokens, chosen = longer[rows, chosen_rows], beam[rows, chosen_rows]
        possible = scores[:, :1] / length**options.length_penalty
        open_texts = open_texts & ((ended_scores[:, -1:] <= _NEVER / 2) | (possible > ended_scores[:, -1:]))
        if length == options.max_new_tokens or search.all_done(~open_texts.any()):
            break
        logits = search.step(tokens.flatten(0, 1), origin[rows, chosen].flatten())
        origin = rows * beams + torch.arange(beams, device=device)
    some = options.num_return_sequences
    return ended[:, :some, : int(lengths[:, :some].max())].flatten(0, 1)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
