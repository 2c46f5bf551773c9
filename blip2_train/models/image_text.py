"""The stage-1 model: vision tower, Q-Former, and the heads of the three objectives (Li et al., 2023, section 3.2).

Shape letters: B batch, R rows of pairs, M images, P patches, Dv tower width, Q queries, T text tokens, D hidden size,
E feature size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_train.models import masks
from blip2_train.models.blip2 import Blip2Model, at_least_float32
from blip2_train.models.configs import GenerationOptions, QFormerConfig, VisionConfig
from blip2_train.models.decoding import Step, generate_tokens, stream_tokens
from blip2_train.models.packing import real_tokens
from blip2_train.models.qformer import (
    KeyValue,
    LanguageModellingHead,
    TextEmbeddings,
    copy_text_to_query_feed_forward,
    initialise_like_bert,
)
from blip2_train.types import EncodedImages, ImageKeyValues, TextTokens


class ImageTextModel(Blip2Model):
    """BLIP-2's representation model.

    Every method is one pass of the Q-Former; `encode_image` runs once per image, and its keys and values, query states
    and query cache serve all three objectives. `generate` writes captions with what the third has taught.

    Args:
        vision: The tower.
        qformer: The Q-Former; `vocab_size` counts `[DEC]`, which is the last id.
        temperature: Initial temperature of the contrastive loss (learned).
    """

    stage = "stage1"
    title = "an image-text model (stage 1)"
    huggingface_class = "Blip2ForImageTextRetrieval"
    huggingface_pipeline = "zero-shot-image-classification"
    continues = ("stage1",)
    matches_texts = True
    fresh_beside_bert: ClassVar[tuple[str, ...]] = (
        "vision_model.*",
        "ln_vision.*",
        "query_tokens",
        "temperature",
        "itm_head.*",
        "vision_projection.*",
        "text_projection.*",
        "qformer.encoder.layer.*.crossattention.*",
        "qformer.encoder.layer.*.intermediate_query.*",
        "qformer.encoder.layer.*.output_query.*",
    )
    heads: ClassVar[tuple[str, ...]] = (
        "lm_head.*",
        "vision_projection.*",
        "text_projection.*",
        "itm_head.*",
        "temperature",
    )
    """Patterns of parameters that serve the three objectives only."""

    def __init__(self, vision: VisionConfig, qformer: QFormerConfig, temperature: float = 0.07) -> None:
        super().__init__(vision, qformer, text_layers=qformer.num_layers)
        size = qformer.hidden_size
        self.embeddings = TextEmbeddings(qformer)
        self.lm_head = LanguageModellingHead(qformer)
        self.vision_projection = nn.Linear(size, qformer.feature_size)
        self.text_projection = nn.Linear(size, qformer.feature_size)
        self.itm_head = nn.Linear(size, 2)
        self._initial_temperature = temperature
        self.temperature = nn.Parameter(torch.tensor(temperature))  # learned, neither clipped nor decayed
        self.initialise(self.embeddings, self.qformer, self.lm_head)
        copy_text_to_query_feed_forward(self.qformer)
        self.freeze_as_configured()

    def complete_from_meta(self) -> None:
        """Beside the buffers: a prediction head and a temperature that transformers' models lack start fresh.

        The head is the same each time that it is drawn: an index or an evaluation knows its model by the weights.
        """
        if self.lm_head.bias.is_meta:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                self.lm_head = LanguageModellingHead(self.qformer_config).eval()
                initialise_like_bert(self.lm_head)
        if self.temperature.is_meta:
            self.temperature = nn.Parameter(torch.tensor(self._initial_temperature))
        super().complete_from_meta()

    @property
    def decoder_start_token_id(self) -> int:
        """Id of `[DEC]`."""
        return self.qformer_config.vocab_size - 1

    def encode_image(self, pixel_values: Tensor) -> EncodedImages:
        """The image pass: everything the objectives need of B images, computed once.

        Args:
            pixel_values: `(B, 3, H, W)`, float, normalised.
        """
        return self.encode_patches(self.vision_model(pixel_values))

    def encode_patches(self, patch_features: Tensor) -> EncodedImages:
        """The image pass from the tower's features `(B, P, Dv)` on."""
        image_kv = self.project_image(patch_features)
        output = self.image_pass(image_kv, keep_cache=True)
        return EncodedImages(
            patch_features=patch_features,
            image_kv=image_kv,
            query_states=output.states,
            query_cache=output.cache,
            image_features=F.normalize(at_least_float32(self.vision_projection(output.states)), dim=-1),
        )

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The text pass: features of the `[CLS]` token.

        Args:
            input_ids: `(B, T)`, int64, starting with `[CLS]`.
            attention_mask: `(B, T)`, bool, True = real token.

        Returns:
            `(B, E)`, float32, unit length.
        """
        packing = self.pack(attention_mask)
        states = self.qformer(
            self.embeddings(input_ids, packing),
            num_queries=0,
            mask=masks.unimodal(attention_mask),
            leading=1,
            packing=packing,
        ).states
        return F.normalize(at_least_float32(self.text_projection(states[:, 0])), dim=-1)

    def match(self, image_kvs: Sequence[ImageKeyValues], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The matching pass: logits averaged over the queries.

        Args:
            image_kvs: Images; their rows add up to R, in the order of the texts.
            input_ids: `(R, T)`, int64, starting with `[CLS]`.
            attention_mask: `(R, T)`, bool, True = real token.

        Returns:
            `(R, 2)`, float; column 1 = match.
        """
        states = self.joint_pass(image_kvs, TextTokens(input_ids, attention_mask))
        return at_least_float32(self.itm_head(states)).mean(dim=1)

    @torch.no_grad()
    def generate(
        self,
        images: Tensor | Sequence[KeyValue],
        input_ids: Tensor,
        options: GenerationOptions,
        uniforms: Tensor | None = None,
        *,
        eos_token_id: int,
        pad_token_id: int,
    ) -> Tensor:
        """Captions by the Q-Former's own prediction head; each image is encoded once, and no token is read twice.

        Args:
            images: `(B, 3, H, W)`, float, normalised; or the `query_cache` of such images encoded before.
            input_ids: `(B, S)`, int64: `[DEC]`, and what the captions go on from; no padding.
            options: Search or sampling; `num_beams`, lengths and the rest count as for language models.
            uniforms: `(B, N, max_new_tokens)`, in [0, 1): with `do_sample`, N captions of each image are sampled with
                these numbers; None = one, by torch's random state.
            eos_token_id: Id of `[SEP]`.
            pad_token_id: Id of `[PAD]`.

        Returns:
            `(B * N, ≤ max_new_tokens)`, int64: new tokens only, image by image; without `uniforms`, N is
            `options.num_return_sequences`.

        Source: `Blip2Qformer.generate` of the released code, which starts from `[DEC]` and takes no prompt.
        """
        first, step = self._started(images, input_ids)
        return generate_tokens(first, step, options, ends=[eos_token_id], pad=pad_token_id, uniforms=uniforms)

    def generate_stepwise(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        options: GenerationOptions,
        *,
        eos_token_id: int,
        pad_token_id: int,
    ) -> Iterator[Tensor]:
        """What `generate` returns, as far as it is, after each new token; `options` without beams."""
        first, step = self._started(pixel_values, input_ids)
        yield from stream_tokens(first, step, options, ends=[eos_token_id], pad=pad_token_id)

    def _started(self, images: Tensor | Sequence[KeyValue], input_ids: Tensor) -> tuple[Tensor, Step]:
        """Logits `(B, V)` behind what captions start with, and where the next ones come from."""
        cache: Sequence[KeyValue] = self.encode_image(images).query_cache if isinstance(images, Tensor) else images
        first, cache = self._next_logits(input_ids, cache, input_ids.shape[1])
        prompt = input_ids

        def step(tokens: Tensor, origin: Tensor | None) -> Tensor:
            nonlocal cache, prompt
            if origin is not None:
                cache = [(keys[origin], values[origin]) for keys, values in cache]
                prompt = prompt[origin]
            logits, cache = self._next_logits(torch.cat([prompt, tokens], dim=1), cache, 1)
            return logits

        return first, step

    def _next_logits(self, input_ids: Tensor, cache: Sequence[KeyValue], new: int) -> tuple[Tensor, list[KeyValue]]:
        """Logits `(R, V)` behind tokens `(R, T)`, the last `new` of which the cache lacks, and the whole cache."""
        known = cache[0][0].shape[2]
        causal = torch.ones(new, known + new, dtype=torch.bool, device=input_ids.device).tril(known)
        embedded = self.embeddings(input_ids)[:, -new:]
        mask = None if new == 1 else causal
        states, own = self.qformer(embedded, num_queries=0, mask=mask, cache=cache, keep_cache=True)
        whole = [
            (torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2))
            for (keys, values), (key, value) in zip(cache, own, strict=True)
        ]
        return self.lm_head(states[:, -1], self.embeddings.word_embeddings.weight), whole

    def caption_logits(self, images: EncodedImages, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The generation pass: text reads the queries through the cache of the image pass.

        Args:
            images: Output of `encode_image` for the same B images.
            input_ids: `(B, T)`, int64, starting with `[DEC]`.
            attention_mask: `(B, T)`, bool, True = real token.

        Returns:
            `(N, V)` logits of what follows each of the N real tokens, text by text.
        """
        packing = self.pack(attention_mask)
        states = self.qformer(
            self.embeddings(input_ids, packing),
            num_queries=0,
            mask=masks.multimodal_causal(attention_mask, images.query_states.shape[1]),
            cache=images.query_cache,
            packing=packing,
        ).states
        logits: Tensor = self.lm_head(states, self.embeddings.word_embeddings.weight)
        return logits.flatten(0, 1).index_select(0, real_tokens(attention_mask)) if packing is None else logits
