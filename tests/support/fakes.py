"""The smallest thing that the stage-1 objective can train: a few numbers, which remember how they were called."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_train.types import EncodedImages, ImageKeyValues

SIZE, VOCABULARY = 6, 60


class FakeEncoder:
    """An `ImageTextEncoder` without layers: images and texts are looked up in one table each."""

    decoder_start_token_id = VOCABULARY - 1

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(VOCABULARY, SIZE, generator=generator, requires_grad=True)
        self.pixels = torch.randn(3, SIZE, generator=generator, requires_grad=True)
        self.temperature = torch.tensor(0.07, requires_grad=True)
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    def encode_image(self, pixel_values: Tensor) -> EncodedImages:
        self.calls.append(("encode_image", tuple(pixel_values.shape)))
        return self.encode_patches(pixel_values.mean(dim=(2, 3))[:, None])

    def encode_patches(self, patch_features: Tensor) -> EncodedImages:
        states = patch_features @ self.pixels
        image_kv = ImageKeyValues(keys=(states[:, None],), values=(states[:, None],))
        return EncodedImages(
            patch_features=patch_features,
            image_kv=image_kv,
            query_states=states,
            query_cache=(),
            image_features=F.normalize(states, dim=-1),
        )

    def project_image(self, patch_features: Tensor) -> ImageKeyValues:
        self.calls.append(("project_image", tuple(patch_features.shape)))
        return self.encode_patches(patch_features).image_kv

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.calls.append(("encode_text", tuple(input_ids.shape)))
        return F.normalize(self._mean(input_ids, attention_mask), dim=-1)

    def match(self, image_kvs: Sequence[ImageKeyValues], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.calls.append(("match", tuple(input_ids.shape)))
        images = torch.cat([image_kv.keys[0][:, 0, 0].repeat(image_kv.copies, 1) for image_kv in image_kvs])
        score = (images * self._mean(input_ids, attention_mask)).sum(dim=1)
        return torch.stack([-score, score], dim=1)

    def caption_logits(self, images: EncodedImages, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.calls.append(("caption_logits", tuple(input_ids.shape)))
        return (self.table[input_ids] + images.query_states)[attention_mask] @ self.table.T

    def _mean(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask[..., None].to(self.table.dtype)
        return (self.table[input_ids] * real).sum(dim=1) / real.sum(dim=1)
