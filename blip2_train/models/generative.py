"""The stage-2 model: a frozen language model reads the queries through one linear layer (Li et al., 2023, section 3.3).

Shape letters: B batch, Q queries, S tokens read, T tokens with a label, D hidden size of the Q-Former, Dl that of the
language model, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from blip2_train.models.adapted_layers import train_adapters
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import GenerationOptions, LanguageModelConfig, QFormerConfig, VisionConfig
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.language_model import (
    FLOAT16_GRADIENT_SCALE,
    build_language_model,
    own_precision,
    right_padded,
    scale_gradient,
)
from blip2_train.models.prompt_cache import DecoderOnlyPrompts, ReadPrompts, read_prompts
from blip2_train.models.qformer import TextEmbeddings
from blip2_train.models.seen_images import SeenImages
from blip2_train.models.text_generation import SpecialTokens, generate_behind, stream_behind
from blip2_train.types import TextTokens


class GenerativeModel(Blip2Model):
    """Tower, Q-Former, and a frozen language model that reads the projected queries.

    Args:
        vision: The tower.
        qformer: The Q-Former; its text sizes are used only with `question_to_qformer`.
        language: The language model, decoder-only or encoder-decoder.
        question_to_qformer: Whether the Q-Former reads the question about an image beside its queries (section 4.3,
            figure 7 of the paper). It then has its text half, without the feed-forward of the last layer: only the
            queries' outputs are used, so that no loss would reach it.
    """

    stage = "stage2"
    title = "a generative model (stage 2)"
    huggingface_class = "Blip2ForConditionalGeneration"
    huggingface_pipeline = "image-text-to-text"
    fresh_beside_bert = (
        "vision_model.*",
        "ln_vision.*",
        "query_tokens",
        "language_model.*",
        "language_projection.*",
        "qformer.encoder.layer.*.crossattention.*",
    )
    language_config: LanguageModelConfig
    reads_prompts_once: bool = True
    """False = all texts by transformers' `generate`, to compare with."""

    def __init__(
        self,
        vision: VisionConfig,
        qformer: QFormerConfig,
        language: LanguageModelConfig,
        question_to_qformer: bool = False,
    ) -> None:
        super().__init__(vision, qformer, text_layers=qformer.num_layers - 1 if question_to_qformer else 0)
        self.language_config, self.question_to_qformer = language, question_to_qformer
        self.initialise(self.qformer)
        if question_to_qformer:
            self.embeddings = TextEmbeddings(qformer)
            self.initialise(self.embeddings)
        language_model = build_language_model(language)
        self.language_projection = nn.Linear(qformer.hidden_size, embedding_width(language_model))
        self.language_model = language_model
        self.freeze_as_configured()

    @property
    def text_config(self) -> PretrainedConfig:
        """Transformers' configuration of the language model."""
        return self.language_model.config

    @property
    def vocab_size(self) -> int:
        """Tokens of the language model."""
        return int(self.language_model.config.vocab_size)

    @property
    def frozen_parts(self) -> dict[str, str]:
        """The weights of tower and language model, as the configurations name them."""
        return {**super().frozen_parts, "language_model": self.language_config.weights}

    @property
    def frozen_dtype(self) -> torch.dtype:
        """Precision of the language model."""
        return next(self.language_model.parameters()).dtype

    @property
    def tokenizer_limit(self) -> int:
        """Rows of the language model's vocabulary head."""
        return len(self.output_layer()[0])

    def configs(self) -> dict[str, Any]:
        """The configurations that the model was built from, by the names of the constructor's arguments."""
        return {**super().configs(), "language": self.language_config}

    def text_half(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Patterns of the parts of a stage-1 text half that the Q-Former has, and of those it does not have.

        One that reads questions has all but the feed-forward of its last layer, any other has none.
        """
        layers = [
            tuple(f"qformer.encoder.layer.{index}.{part}.*" for part in ("intermediate", "output"))
            for index in range(self.qformer_config.num_layers)  # a `*` as index would match the attention, too
        ]
        before_last = ("embeddings.*", *itertools.chain(*layers[:-1]))
        return (before_last, layers[-1]) if self.question_to_qformer else ((), (*before_last, *layers[-1]))

    def fresh_after(self, stage: str) -> tuple[str, ...]:
        """The language model, and after stage 1 the projection to it."""
        return ("language_model.*", "language_projection.*") if stage == ImageTextModel.stage else ("language_model.*",)

    def unread_after(self, stage: str) -> tuple[str, ...]:
        """After stage 1 its heads, and what the Q-Former does not have of the text half."""
        return (*self.text_half()[1], *ImageTextModel.heads) if stage == ImageTextModel.stage else ()

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the language model has an encoder (T5) or not (OPT)."""
        return bool(self.language_model.config.is_encoder_decoder)

    @property
    def decoder_start_id(self) -> int:
        """The token that an encoder-decoder's decoder reads first; T5, BART and others state it."""
        config: Any = self.language_model.config
        return int(config.decoder_start_token_id)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; the language model follows only if its dropout or its gradient checkpointing is on.

        Its adapters always follow.
        """
        super().train(mode)
        config = self.language_config
        self.language_model.train(mode and (config.dropout or config.gradient_checkpointing))
        train_adapters(self.language_model, mode)
        return self

    def see(self, pixel_values: Tensor) -> SeenImages:
        """Images `(M, 3, H, W)` through the tower, and the Q-Former if it reads no questions."""
        image_kv = self.project_image(self.vision_model(pixel_values))
        if self.question_to_qformer:
            return SeenImages(image_kv=image_kv, states=None)
        return SeenImages(image_kv=None, states=self.image_pass(image_kv).states)

    def query_states(self, images: Tensor | SeenImages, question: TextTokens | None = None) -> Tensor:
        """Output `(B, Q, D)` of the Q-Former for images `(B, 3, H, W)`, or seen, and questions if it reads them."""
        seen = self.see(images) if isinstance(images, Tensor) else images
        if seen.image_kv is None:
            assert seen.states is not None
            return seen.states
        return self.image_pass(seen.image_kv).states if question is None else self.joint_pass([seen.image_kv], question)

    def soft_prompt(self, images: Tensor | SeenImages, question: TextTokens | None = None) -> Tensor:
        """What the language model reads of B images: `(B, Q, Dl)`."""
        prompt: Tensor = self.language_projection(self.query_states(images, question))
        return prompt

    def predicting_states(
        self,
        pixel_values: Tensor | SeenImages,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        question: TextTokens | None = None,
    ) -> Tensor:
        """Last states of the language model, aligned with the labels.

        Args:
            pixel_values: `(B, 3, H, W)`, or the images as seen.
            input_ids: `(B, S)`, int64: read after the queries.
            attention_mask: `(B, S)`, bool, True = real token.
            labels: `(B, T)`, int64, -100 where there is none; decoder-only: T = S.
            question: What the Q-Former reads, if it reads questions.

        Returns:
            `(B, T, Dl)`; the state at t has seen what stands before label t, and predicts it.
        """
        embeddings, mask = self.language_inputs(
            self.soft_prompt(pixel_values, question), input_ids, attention_mask, training=True
        )
        with own_precision(self.language_model, input_ids.device):
            if self.is_encoder_decoder:
                states = self._encoder_decoder_states(embeddings, mask, labels)
            else:
                output = self.language_model.base_model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
                states = output.last_hidden_state[:, -labels.shape[1] - 1 : -1]
        return scale_gradient(states, self._gradient_scale)

    def output_layer(self) -> tuple[Tensor, Tensor | None]:
        """Weight `(V, Dl)` and bias of the language model's vocabulary head."""
        head = cast(nn.Linear, self.language_model.get_output_embeddings())
        added: Tensor | None = getattr(self.language_model, "final_logits_bias", None)  # of BART, Pegasus, Marian
        if added is None or head.bias is not None:
            return head.weight, head.bias
        return head.weight, added[0]

    @torch.no_grad()
    def generate(
        self,
        images: Tensor | SeenImages,
        input_ids: Tensor,
        attention_mask: Tensor,
        options: GenerationOptions,
        question: TextTokens | None = None,
        uniforms: Tensor | None = None,
        decoder_start: Sequence[int] = (),
        *,
        eos_token_id: int | Sequence[int],
        pad_token_id: int,
    ) -> Tensor:
        """Generate text for images.

        Only the arguments decide; settings that a language model brings along (sampling, forced or forbidden tokens,
        …) are left aside. Queries and prompt are read once for each row, and their keys and values serve all beams or
        samples, unless `reads_prompts_once` is False or the language model cannot be read so.

        Args:
            images: `(B, 3, H, W)`, or seen.
            input_ids: `(B, S)`, int64: prompts, padded on either side; S may be 0.
            attention_mask: `(B, S)`, bool, True = real token. Padding never changes what is generated.
            options: Search or sampling.
            question: What the Q-Former reads, if it reads questions.
            uniforms: `(B, N, max_new_tokens)`, in [0, 1): with `do_sample`, N texts of each image are sampled with
                these numbers; None = one text, by torch's random state.
            decoder_start: What stands in an encoder-decoder's decoder between its start token and its text (BART:
                `<s>`).
            eos_token_id: One, or several.
            pad_token_id: Stands behind the end.

        Returns:
            `(B * N, ≤ max_new_tokens)`, int64, image by image: new tokens only (in front of an encoder-decoder's stand
            its start token and `decoder_start`); without `uniforms`, N is `options.num_return_sequences`.
        """
        embeddings, mask = self.language_inputs(self.soft_prompt(images, question), input_ids, attention_mask)
        tokens = SpecialTokens.of(eos_token_id, pad_token_id, self.text_start(decoder_start))
        model, once = self.language_model, self.reads_prompts_once
        with own_precision(model, mask.device):
            return generate_behind(model, embeddings, mask, options, tokens, uniforms, read_once=once)

    def generate_stepwise(
        self,
        images: Tensor | SeenImages,
        input_ids: Tensor,
        attention_mask: Tensor,
        options: GenerationOptions,
        question: TextTokens | None = None,
        decoder_start: Sequence[int] = (),
        *,
        eos_token_id: int | Sequence[int],
        pad_token_id: int,
    ) -> Iterator[Tensor]:
        """What `generate` returns, as far as it is, after each new token; arguments as there, `options` without beams.

        Precision and gradients are the caller's: `own_precision` and `torch.no_grad` around each step.
        """
        embeddings, mask = self.language_inputs(self.soft_prompt(images, question), input_ids, attention_mask)
        tokens = SpecialTokens.of(eos_token_id, pad_token_id, self.text_start(decoder_start))
        once = self.reads_prompts_once
        yield from stream_behind(self.language_model, embeddings, mask, options, tokens, read_once=once)

    @torch.no_grad()
    def read_prompts(
        self, soft_prompt: Tensor, input_ids: Tensor, attention_mask: Tensor, decoder_start: Sequence[int] = ()
    ) -> ReadPrompts | None:
        """Read queries `(B, Q, Dl)` and prompts `(B, S)` once, for any number of texts that go on from them.

        None if the language model cannot be read so.
        """
        embeddings, mask = self.language_inputs(soft_prompt, input_ids, attention_mask)
        with own_precision(self.language_model, mask.device):
            read = right_padded(embeddings, mask)
            return read_prompts(self.language_model, *read, self.text_start(decoder_start))

    @torch.no_grad()
    def extended(self, read: DecoderOnlyPrompts, kept: int, input_ids: Tensor) -> DecoderOnlyPrompts | None:
        """One read prompt with `input_ids` `(1, S)`, S >= 1, behind its queries and its first `kept` tokens.

        None if what was read cannot be cut there.
        """
        with own_precision(self.language_model, input_ids.device):
            return read.extended(self.query_tokens.shape[1] + kept, input_ids)

    def text_start(self, behind: Sequence[int] = ()) -> list[int]:
        """Ids that an encoder-decoder's texts start with, `behind` after its start token; none without an encoder."""
        return [self.decoder_start_id, *behind] if self.is_encoder_decoder else []

    @property
    def _gradient_scale(self) -> float:
        return FLOAT16_GRADIENT_SCALE if next(self.language_model.parameters()).dtype == torch.float16 else 1.0

    def language_inputs(
        self, prompt: Tensor, input_ids: Tensor, attention_mask: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Embeddings `(B, Q + S, Dl)` and mask (int64) of the queries and the text after them."""
        text = self.language_model.get_input_embeddings()(input_ids)
        if training:
            prompt = scale_gradient(prompt, 1.0 / self._gradient_scale)
        mask = torch.cat([attention_mask.new_ones(prompt.shape[:2]), attention_mask], dim=1)
        with own_precision(self.language_model, prompt.device):  # autocast cannot concatenate float16 on a CPU
            return torch.cat([prompt.to(text.dtype), text], dim=1), mask.long()

    def _encoder_decoder_states(self, embeddings: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        model, config = cast(Any, self.language_model), self.language_model.config
        start = torch.full_like(labels[:, :1], self.decoder_start_id)
        decoder_ids = torch.cat([start, labels[:, :-1]], dim=1)
        encoder_states = model.get_encoder()(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        output = model.get_decoder()(
            input_ids=decoder_ids.masked_fill(
                decoder_ids == -100, self.decoder_start_id
            ),  # behind the text, seen by no label
            encoder_hidden_states=encoder_states,
            encoder_attention_mask=mask,
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state
        if getattr(config, "scale_decoder_outputs", False):  # T5 with a tied head
            states = states * config.d_model**-0.5
        return states


def embedding_width(language_model: PreTrainedModel) -> int:
    """Size Dl of the token embeddings of a language model."""
    return int(cast(nn.Embedding, language_model.get_input_embeddings()).embedding_dim)
