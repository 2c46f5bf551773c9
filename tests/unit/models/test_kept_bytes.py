"""What a forward pass keeps for the backward pass in 16-bit autocast."""

from __future__ import annotations

import pytest
import torch
from tiny import image_text_batch, image_text_model
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def kept(module: nn.Module, run: object) -> list[Tensor]:
    """Distinct storages that are kept, each as one flat tensor, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    storages: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        run()  # type: ignore[operator]
    return list(storages.values())


@pytest.mark.parametrize("frozen", [True, False])
def test_normalised_features_are_kept_once(frozen: bool) -> None:
    """However many layers read them."""
    model = image_text_model(num_layers=6, vision={"frozen": frozen})
    with torch.no_grad():
        features = model.vision_model(image_text_batch().pixel_values)
    tensors = kept(model, lambda: model.project_image(features.requires_grad_(not frozen)))
    copies = [one for one in tensors if one.numel() == features.numel() and one.dtype == torch.bfloat16]
    assert len(copies) == 1, "three layers read images"


def test_float32_stays_float32_without_autocast() -> None:
    model = image_text_model()
    image_kv = model.project_image(torch.randn(2, 17, 24).bfloat16())
    assert {key.dtype for key in image_kv.keys} == {torch.float32}
