"""Log-likelihoods of given texts after images and prompts, under the language model of a generative model.

Shape letters: B images, S tokens read, C texts, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutput

from blip2_train.models.generative import GenerativeModel
from blip2_train.models.language_model import own_precision
from blip2_train.types import TextTokens

AT_ONCE = 128
"""Texts that the language model reads at a time; each holds keys and values of the whole prompt."""
_NONE = -100


@torch.no_grad()
def log_likelihoods(
    model: GenerativeModel,
    pixel_values: Tensor,
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
    padding or neighbour changes its scores.

    Args:
        model: On its device.
        pixel_values: `(B, 3, H, W)`.
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
    embeddings, mask = model.language_inputs(model.soft_prompt(pixel_values, question), input_ids, attention_mask)
    rows = [torch.tensor(text, device=mask.device) for text in texts]
    first = torch.stack([row[0] for row in rows])
    likelihoods = torch.full((len(mask), len(rows)), -torch.inf, device=mask.device)
    with own_precision(model.language_model, mask.device):
        for scores, read, real in zip(likelihoods, embeddings, mask.bool(), strict=True):
            prompt = _Prompt(model, read[real][None], decoder_start)
            opening = prompt.next_token[first]
            likeliest = opening.argsort(descending=True, stable=True)[:shortlist]
            for chunk in likeliest.split(AT_ONCE):
                scores[chunk] = opening[chunk] + prompt.rest([rows[index] for index in chunk.tolist()])
    return likelihoods


class _Prompt:
    """Cached keys and values of one prompt `(1, L, Dl)`, and the log-probabilities `(V,)` of the next token."""

    def __init__(self, model: GenerativeModel, embeddings: Tensor, decoder_start: Sequence[int]) -> None:
        self._model, self._length = cast(Any, model.language_model), embeddings.shape[1]
        self._encoded: Tensor | None = None
        if model.is_encoder_decoder:
            self._encoded = self._model.get_encoder()(inputs_embeds=embeddings).last_hidden_state
            decoder_ids = torch.tensor([[model.decoder_start_id, *decoder_start]], device=embeddings.device)
            output = self._model(
                encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded),
                decoder_input_ids=decoder_ids,
                use_cache=True,
            )
        else:
            output = self._model(inputs_embeds=embeddings, use_cache=True)
        self._cache = output.past_key_values
        self.next_token: Tensor = output.logits[0, -1].float().log_softmax(dim=0)

    def rest(self, rows: Sequence[Tensor]) -> Tensor:
        """Log-likelihood `(R,)` of each row's tokens after the first; padding comes last and no token attends to it."""
        ids = pad_sequence(list(rows), batch_first=True)[:, :-1]
        targets = pad_sequence(list(rows), batch_first=True, padding_value=_NONE)[:, 1:]
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(len(rows))
        if self._encoded is None:
            mask = ids.new_ones(len(rows), self._length + ids.shape[1])
            output = self._model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        else:
            encoded = BaseModelOutput(last_hidden_state=self._encoded.expand(len(rows), -1, -1))
            output = self._model(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache, use_cache=True)
        losses = F.cross_entropy(output.logits.float().mT, targets, ignore_index=_NONE, reduction="none")
        return -losses.sum(dim=1)
