import pytest
import timm
import torch
from tiny import vision_config

from blip2_train.errors import ConfigError
from blip2_train.models.vision_tower import VisionTower, create_timm_tower


def test_features_are_those_before_the_last_block_without_final_norm() -> None:
    torch.manual_seed(0)
    whole = create_timm_tower(vision_config()).eval()
    torch.manual_seed(0)
    tower = VisionTower(vision_config())
    images = torch.randn(2, 3, 32, 32)
    expected = whole.forward_intermediates(
        images, indices=[-2], norm=False, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
    )[0]
    expected = torch.cat([expected[1], expected[0]], dim=1) if isinstance(expected, tuple) else expected
    torch.testing.assert_close(tower(images), expected)
    assert tower(images).shape == (2, 17, 24)


def test_a_frozen_tower_stays_in_eval_mode_and_takes_no_gradient() -> None:
    tower = VisionTower(vision_config(overrides=vision_config().overrides | {"proj_drop_rate": 0.5}))
    tower.train()
    assert not any(module.training for module in tower.modules())
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    assert not tower(images).requires_grad
    torch.testing.assert_close(tower(images), tower(images), rtol=0, atol=0)


def test_a_trained_tower_takes_gradient_and_follows_train() -> None:
    tower = VisionTower(vision_config(frozen=False))
    assert tower.train().tower.training and not tower.eval().tower.training
    tower(torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in tower.parameters())


PARTS = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 8}
FAMILIES = {
    "vit_tiny_patch16_224": PARTS,
    "eva_giant_patch14_clip_224": PARTS,
    "vit_large_patch14_clip_quickgelu_224": PARTS,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_keeps_less_and_changes_no_gradient(name: str) -> None:
    """Also with random drops: the second pass draws the same as the first."""
    actual = {}
    for checkpointing in (False, True):
        torch.manual_seed(0)
        overrides = FAMILIES[name] | {"proj_drop_rate": 0.3}
        tower = VisionTower(
            vision_config(name=name, frozen=False, gradient_checkpointing=checkpointing, overrides=overrides)
        ).train()
        images, kept = torch.randn(2, 3, 32, 32), 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            features = tower(images)
        features.square().sum().backward()
        actual[checkpointing] = (kept, features.detach(), {n: p.grad for n, p in tower.named_parameters()})
    (whole, features, gradients), (less, again, others) = actual[False], actual[True]
    assert less < whole / 3
    torch.testing.assert_close(again, features, rtol=0, atol=0)
    assert len(gradients) == len(others) > 30
    for parameter, gradient in gradients.items():
        assert gradient is not None and gradient.abs().max() > 0, parameter
        torch.testing.assert_close(others[parameter], gradient, rtol=0, atol=0)


def test_sixteen_bit_weights_run_in_their_own_precision_under_autocast() -> None:
    tower = VisionTower(vision_config(dtype="float16"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tower(torch.randn(1, 3, 32, 32)).dtype == torch.float16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "vit_tinny_patch16_224"}, "vit_tinny_patch16_224"),
        ({"name": "resnet18", "overrides": {}}, "cannot be the vision tower: its layers have grids of different sizes"),
        ({"overrides": {"embedim": 3}}, "embedim"),
        ({"dropped_blocks": 3}, "3 blocks"),
        ({"frozen": False, "dtype": "float16"}, "NaN"),
        ({"dtype": "half"}, "half"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_impossible_towers_are_refused_by_name(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VisionTower(vision_config(**changes))


def test_the_papers_towers_have_the_papers_sizes() -> None:
    for name, width, blocks, parameters in (
        ("eva_giant_patch14_clip_224.laion400m", 1408, 39, 985_894_528),
        ("vit_large_patch14_clip_quickgelu_224.openai", 1024, 23, 290_581_504),
    ):
        with torch.device("meta"):
            tower = VisionTower(vision_config(name=name, image_size=224, overrides={}))
        assert (tower.width, tower.num_blocks) == (width, blocks)
        assert sum(p.numel() for p in tower.parameters()) == parameters
        assert timm.is_model(name.split(".")[0])
