"""What both stages share: a vision tower, and queries that read its image through the Q-Former.

Shape letters: B batch, R rows of pairs, M images, P patches, Dv tower width, Q queries, T text tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_train.models import masks
from blip2_train.models.adapted_layers import train_adapters
from blip2_train.models.configs import AdapterConfig, LanguageModelConfig, QFormerConfig, VisionConfig
from blip2_train.models.freezing import freeze
from blip2_train.models.packing import Packing, pack
from blip2_train.models.qformer import QFormer, QFormerOutput, TextEmbeddings, initialise_like_bert
from blip2_train.models.vision_tower import VisionTower
from blip2_train.types import ImageKeyValues, TextTokens

if TYPE_CHECKING:  # slow to import
    from transformers import PretrainedConfig, PreTrainedModel


def at_least_float32(values: Tensor) -> Tensor:
    """The same values, in float32 if they were in 16 bits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def in_autocast(values: Tensor) -> Tensor:
    """The same values in the precision in which autocast computes matrix products, if it is on."""
    device = values.device.type
    return values.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else values


class Blip2Model(nn.Module):
    """Tower, `ln_vision`, query tokens and Q-Former.

    The attributes and methods at its end describe a model to those who load, convert, export, evaluate or shard it;
    each kind of model overrides what differs.

    Args:
        vision: The tower.
        qformer: The Q-Former.
        text_layers: Layers of the Q-Former that have a text half. Stage 2 reads images only, and a parameter that no
            loss reaches must not exist (plain data parallelism would fail).
    """

    def __init__(self, vision: VisionConfig, qformer: QFormerConfig, text_layers: int) -> None:
        super().__init__()
        self.vision_config, self.qformer_config = vision, qformer
        self.adapters: AdapterConfig | None = None
        """What `add_adapters` has added."""
        self.vision_model = VisionTower(vision)
        self.ln_vision = nn.LayerNorm(self.vision_model.width, eps=1e-5)
        self.query_tokens = nn.Parameter(torch.empty(1, qformer.num_queries, qformer.hidden_size))
        self.qformer = QFormer(qformer, self.vision_model.width, text_layers)

    embeddings: TextEmbeddings
    """Of texts that the Q-Former reads, in models that have them."""
    language_model: PreTrainedModel
    """In models that have one (`language_config` is not None)."""

    stage: ClassVar[str]
    """Name of the stage of training, as exports record it."""
    title: ClassVar[str]
    """The kind of model, for messages."""
    huggingface_class: ClassVar[str]
    """Name of transformers' class for such models."""
    huggingface_pipeline: ClassVar[str]
    """What a model card calls its use."""
    continues: ClassVar[tuple[str, ...]] = ()
    """Stages whose weights it can start from; empty = every one."""
    matches_texts: ClassVar[bool] = False
    """Whether it embeds texts, scores pairs of image and text, and captions by the Q-Former's own prediction head."""
    fresh_beside_bert: ClassVar[tuple[str, ...]]
    """Patterns of parameters that a BERT holds no weights for."""
    question_to_qformer: bool = False
    """Whether the Q-Former reads a question beside its queries."""
    language_config: LanguageModelConfig | None = None
    """Of the language model; None = the model has none."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens that the model predicts: those of the Q-Former, `[DEC]` included."""
        return self.qformer_config.vocab_size

    @property
    def reads_text(self) -> bool:
        """Whether the Q-Former reads texts, so that it has embeddings of tokens."""
        return self.matches_texts or self.question_to_qformer

    @property
    def text_config(self) -> PretrainedConfig | None:
        """Transformers' configuration of the language model; None = the model has none."""
        return None

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the language model has an encoder (T5) or not (OPT, or no language model)."""
        return False

    @property
    def frozen_parts(self) -> dict[str, str]:
        """What the configurations name as the weights of each part that has a file of its own, by the part's name."""
        return {"vision_model": self.vision_config.weights}

    @property
    def frozen_dtype(self) -> torch.dtype:
        """Precision of the frozen part that comes last: the language model, or the tower where there is none."""
        return self.vision_model.dtype

    @property
    def tokenizer_limit(self) -> int:
        """Most tokens that the tokenizer of its texts may have."""
        return self.vocab_size

    def configs(self) -> dict[str, Any]:
        """The configurations that the model was built from, by the names of the constructor's arguments."""
        return {"vision": self.vision_config, "qformer": self.qformer_config}

    def text_half(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Patterns of the parts of stage 1's text half that the Q-Former takes from there, and of those it lacks."""
        return (), ()

    def fresh_after(self, stage: str) -> tuple[str, ...]:
        """Patterns of parameters that weights of a stage do not hold, beside the tower."""
        return ()

    def unread_after(self, stage: str) -> tuple[str, ...]:
        """Patterns of weights of a stage that the model has no parameters for."""
        return ()

    def complete_from_meta(self) -> None:
        """Give memory and values to what no file holds, in a model built on the meta device: computed buffers."""
        for module in self.vision_model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_meta:
                    setattr(module, name, torch.zeros_like(buffer, device="cpu"))
            compute: Any = getattr(module, "init_non_persistent_buffers", None)  # timm's
            if compute is not None:
                compute()

    def initialise(self, *parts: nn.Module) -> None:
        """Initialise weights at random: `parts` as BERT's, then the queries."""
        for part in parts:
            initialise_like_bert(part, self.qformer_config.initializer_range)
        nn.init.normal_(self.query_tokens, std=self.qformer_config.initializer_range)

    def freeze_as_configured(self) -> None:
        """Take out of training what `qformer.frozen` names; constructors end with it."""
        if self.qformer_config.frozen != "none":
            self.query_tokens.requires_grad_(False)
        if self.qformer_config.frozen == "all":
            for part in (self.ln_vision, *self._qformer_parts()):
                freeze(part)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a Q-Former that is frozen as a whole stays in eval mode, but for its adapters."""
        super().train(mode)
        if self.qformer_config.frozen == "all":
            for part in self._qformer_parts():
                part.eval()
            train_adapters(self.qformer, mode)
        return self

    def _qformer_parts(self) -> list[nn.Module]:
        return [self.qformer, self.embeddings] if self.reads_text else [self.qformer]

    def project_image(self, patch_features: Tensor) -> ImageKeyValues:
        """Cross-attention keys and values of images, with `ln_vision` folded in.

        Args:
            patch_features: `(M, P, Dv)`, the tower's output.
        """
        normalised = F.layer_norm(at_least_float32(patch_features), patch_features.shape[-1:], eps=self.ln_vision.eps)
        normalised = in_autocast(normalised)  # once: autocast would make, and keep, a copy for each layer that reads it
        return self.qformer.project_image_kv(normalised, self.ln_vision.weight, self.ln_vision.bias)

    def image_pass(self, image_kv: ImageKeyValues, keep_cache: bool = False) -> QFormerOutput:
        """The queries attend to B images, one each: states `(B, Q, D)`, and self-attention cache if it is kept."""
        queries = self.query_tokens.expand(len(image_kv), -1, -1)
        return self.qformer(queries, num_queries=queries.shape[1], image_kvs=[image_kv], keep_cache=keep_cache)

    def pack(self, attention_mask: Tensor, num_queries: int = 0) -> Packing | None:
        """Where the real tokens of texts `(R, T)` go; None = padding is computed, too."""
        return pack(attention_mask, num_queries) if self.qformer_config.pack_text else None

    def joint_pass(self, image_kvs: Sequence[ImageKeyValues], text: TextTokens) -> Tensor:
        """The queries read images together with R texts, under the bidirectional mask.

        Args:
            image_kvs: Images; their rows add up to R, in the order of the texts.
            text: `(R, T)`.

        Returns:
            States of the queries, `(R, Q, D)`.
        """
        queries = self.query_tokens.expand(len(text.input_ids), -1, -1)
        num_queries = queries.shape[1]
        packing = self.pack(text.attention_mask, num_queries)
        embedded = self.embeddings(text.input_ids, packing)
        output = self.qformer(
            torch.cat([queries, embedded], dim=1) if packing is None else packing.join(queries, embedded),
            num_queries=num_queries,
            mask=masks.bidirectional(text.attention_mask, num_queries),
            image_kvs=image_kvs,
            leading=num_queries,
            packing=packing,
        )
        return output.states
