"""Log-likelihoods of given texts after images and prompts, under the language model of a generative model.

Shape letters: B images, S tokens read, C texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from blip2_train.models.generative import GenerativeModel
from blip2_train.models.language_model import own_precision
from blip2_train.models.prompt_cache import ReadPrompts
from blip2_train.models.seen_images import SeenImages
from blip2_train.types import TextTokens

AT_ONCE = 128
"""Texts that the language model reads at a time; each holds keys and values of the whole prompt."""
_NONE = -100


@torch.no_grad()
def log_likelihoods(
    model: GenerativeModel,
    images: Tensor | SeenImages,
    input_ids: Tensor,
    attention_mask: Tensor,
    texts: Sequence[Sequence[int]],
    shortlist: int,
    question: TextTokens | None = None,
    decoder_start: Sequence[int] = (),
) -> Tensor:
    """Score texts as continuations of images and prompts: the sum over their tokens, without a penalty of length.

    Queries and prompt are read once for each image; their keys and values serve all texts. The texts whose first
    tokens are the likeliest are read to the end, the others are left out. Each image is computed alone, so that no
    padding or neighbour changes its scores. Language models whose keys and values cannot be repeated read the prompt
    again with each text.

    Args:
        model: On its device.
        images: `(B, 3, H, W)`, or seen.
        input_ids: `(B, S)`, int64: prompts, padded on either side.
        attention_mask: `(B, S)`, bool, True = real token.
        texts: C rows of two tokens or more, the end token with them.
        shortlist: Texts that are read to the end; C or more = all.
        question: What the Q-Former reads, if it reads questions.
        decoder_start: As for `GenerativeModel.generate`.

    Returns:
        `(B, C)`, float32, nats; minus infinity for what is not on the shortlist.

    Source: Li et al., "Align before Fuse" (ALBEF), arXiv:2107.07651, section 5, and its `rank_answer`.
    """
    seen = model.see(images) if isinstance(images, Tensor) else images
    soft_prompts = model.soft_prompt(seen, question)
    rows = [torch.tensor(text, device=input_ids.device) for text in texts]
    first = torch.stack([row[0] for row in rows])
    likelihoods = torch.full((len(input_ids), len(rows)), -torch.inf, device=input_ids.device)
    for index, (scores, ids, real) in enumerate(zip(likelihoods, input_ids, attention_mask, strict=True)):
        prompt = None
        if model.reads_prompts_once:
            prompt = model.read_prompts(soft_prompts[index, None], ids[real][None], real[real][None], decoder_start)
        if prompt is None:
            image = seen.select(torch.tensor([index], device=ids.device))
            its_question = None if question is None else TextTokens(*(part[index : index + 1] for part in question))
            tokens = _again(model, image, ids[real], rows, its_question, decoder_start)
            opening, rest = tokens[:, 0], tokens[:, 1:].sum(dim=1)
        else:
            opening = prompt.first[0].log_softmax(dim=0)[first]
        for chunk in opening.argsort(descending=True, stable=True)[:shortlist].split(AT_ONCE):
            if prompt is None:
                scores[chunk] = opening[chunk] + rest[chunk]
                continue
            with own_precision(model.language_model, ids.device):
                scores[chunk] = opening[chunk] + _rest(prompt, [rows[text] for text in chunk.tolist()])
    return likelihoods


def _rest(prompt: ReadPrompts, rows: Sequence[Tensor]) -> Tensor:
    """Log-likelihood `(R,)` of each row's tokens after the first; padding comes last and no token attends to it."""
    ids = pad_sequence(list(rows), batch_first=True)[:, :-1]
    targets = pad_sequence(list(rows), batch_first=True, padding_value=_NONE)[:, 1:]
    logits = prompt.fork().read(ids, origin=ids.new_zeros(len(rows)))
    return -F.cross_entropy(logits.mT, targets, ignore_index=_NONE, reduction="none").sum(dim=1)


def _again(
    model: GenerativeModel,
    image: SeenImages,
    prompt: Tensor,
    texts: Sequence[Tensor],
    question: TextTokens | None,
    decoder_start: Sequence[int],
) -> Tensor:
    """Log-likelihoods `(C, longest)` of the tokens of texts, zeros behind their ends; each is read with the prompt."""
    front = prompt if not model.is_encoder_decoder else torch.tensor(list(decoder_start), device=prompt.device).long()
    parts = []
    for chunk in (texts[first : first + AT_ONCE] for first in range(0, len(texts), AT_ONCE)):
        rows = [torch.cat([front, text]) for text in chunk]
        ids = pad_sequence(rows, batch_first=True)
        labels = pad_sequence(rows, batch_first=True, padding_value=_NONE)
        read = ids if not model.is_encoder_decoder else prompt.expand(len(rows), -1)
        mask = labels != _NONE if not model.is_encoder_decoder else torch.ones_like(read, dtype=torch.bool)
        copies = ids.new_zeros(len(rows))
        repeated = None if question is None else TextTokens(*(part[copies] for part in question))
        states = model.predicting_states(image.select(copies), read, mask, labels, repeated)[:, len(front) :]
        logits = F.linear(states, *model.output_layer()).float()
        parts.append(-F.cross_entropy(logits.mT, labels[:, len(front) :], ignore_index=_NONE, reduction="none"))
    longest = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in parts])
