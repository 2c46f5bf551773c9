"""What both stages share: a vision tower, and queries that read its picture through the Q-Former.

Shape letters: B batch, M pictures, P patches, Dv tower width, Q queries, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_train.models.configs import QFormerConfig, VisionConfig
from blip2_train.models.qformer import QFormer, QFormerOutput, initialise_like_bert
from blip2_train.models.vision_tower import VisionTower
from blip2_train.types import ImageMemory


def at_least_float32(values: Tensor) -> Tensor:
    """The same values, in float32 if they were in 16 bits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


class ImageQueryModel(nn.Module):
    """Tower, `ln_vision`, query tokens and Q-Former.

    Args:
        vision: The tower.
        qformer: The Q-Former.
        text_branch: Whether the Q-Former has its text half. Stage 2 reads pictures only, and a parameter that no loss
            reaches must not exist (plain data parallelism would fail).
    """

    def __init__(self, vision: VisionConfig, qformer: QFormerConfig, text_branch: bool) -> None:
        super().__init__()
        self.vision_config, self.qformer_config = vision, qformer
        self.vision_model = VisionTower(vision)
        self.ln_vision = nn.LayerNorm(self.vision_model.width, eps=1e-5)
        self.query_tokens = nn.Parameter(torch.empty(1, qformer.num_queries, qformer.hidden_size))
        self.qformer = QFormer(qformer, self.vision_model.width, text_branch)

    def initialise(self, *parts: nn.Module) -> None:
        """Draw fresh weights: `parts` as BERT's, then the queries."""
        for part in parts:
            initialise_like_bert(part, self.qformer_config.initializer_range)
        nn.init.normal_(self.query_tokens, std=self.qformer_config.initializer_range)

    def project_image(self, patch_features: Tensor) -> ImageMemory:
        """Cross-attention keys and values of pictures, with `ln_vision` folded in.

        Args:
            patch_features: `(M, P, Dv)`, the tower's output.
        """
        normalised = F.layer_norm(at_least_float32(patch_features), patch_features.shape[-1:], eps=self.ln_vision.eps)
        return self.qformer.project_memory(normalised, self.ln_vision.weight, self.ln_vision.bias)

    def image_pass(self, memory: ImageMemory) -> QFormerOutput:
        """The queries read each picture of a memory of B pictures: states `(B, Q, D)` and self-attention cache."""
        queries = self.query_tokens.expand(len(memory), -1, -1)
        return self.qformer(queries, num_queries=queries.shape[1], memories=[memory])
