import pytest
import torch
from tiny import image_text_model

from blip2_train.errors import ConfigError
from blip2_train.optim.config import OptimizerConfig
from blip2_train.optim.param_groups import (
    build_adamw,
    layer_scale,
    optimizer_difference,
    parameter_groups,
    set_learning_rate,
)
from blip2_train.optim.schedule import learning_rate


def config(**changes: object) -> OptimizerConfig:
    numbers: dict[str, object] = {
        "lr": 1e-4,
        "min_lr": 1e-5,
        "warmup_lr": 1e-6,
        "warmup_steps": 10,
        "steps": 110,
        "betas": (0.9, 0.98),
        "weight_decay": 0.05,
    }
    return OptimizerConfig(**(numbers | changes))  # type: ignore[arg-type]


def test_schedule_has_the_papers_corners() -> None:
    rates = [learning_rate(step, config()) for step in (0, 5, 10, 60, 110, 500)]
    assert rates == pytest.approx([1e-6, 5.05e-5, 1e-4, 5.5e-5, 1e-5, 1e-5])


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = image_text_model()
    names = [n for g in parameter_groups(model.named_parameters(), 2, config()) for n in g.parameter_names]
    assert sorted(names) == sorted(n for n, p in model.named_parameters() if p.requires_grad)


def test_matrices_decay_and_vectors_scalars_and_biases_do_not() -> None:
    groups = parameter_groups(image_text_model().named_parameters(), 2, config())
    decay = {n for g in groups if g.weight_decay for n in g.parameter_names}
    spared = {n for g in groups if not g.weight_decay for n in g.parameter_names}
    assert {"query_tokens", "embeddings.word_embeddings.weight", "itm_head.weight"} <= decay
    assert {"temperature", "itm_head.bias", "ln_vision.weight", "lm_head.bias"} <= spared
    groups = parameter_groups(image_text_model().named_parameters(), 2, config(decay_embeddings=False))
    spared = {n for g in groups if not g.weight_decay for n in g.parameter_names}
    assert {"query_tokens", "embeddings.word_embeddings.weight"} <= spared


def test_layer_decay_reaches_the_optimisers_learning_rates() -> None:
    model = image_text_model(vision={"frozen": False})
    groups = parameter_groups(model.named_parameters(), 2, config(layer_decay=0.5))
    optimizer = build_adamw(groups, config(layer_decay=0.5))
    set_learning_rate(optimizer, 1.0)
    rates = {}
    for group, built in zip(groups, optimizer.param_groups, strict=True):
        rates |= dict.fromkeys(group.parameter_names, built["lr"])
    assert rates["vision_model.tower.patch_embed.proj.weight"] == pytest.approx(0.5**3)
    assert rates["vision_model.tower.pos_embed"] == pytest.approx(0.5**3)
    assert rates["vision_model.tower.blocks.0.mlp.fc1.weight"] == pytest.approx(0.5**2)
    assert rates["vision_model.tower.blocks.1.mlp.fc1.weight"] == pytest.approx(0.5)
    assert rates["qformer.encoder.layer.0.output.dense.weight"] == 1.0


def test_layer_scales_of_vit_g_are_the_papers() -> None:
    scale = {
        name: layer_scale(f"vision_model.tower.{name}.weight", 39, 0.95)
        for name in ("patch_embed.proj", "blocks.0.mlp", "blocks.38.mlp")
    }
    assert scale["patch_embed.proj"] == pytest.approx(0.1285, abs=1e-4)
    assert scale["blocks.0.mlp"] == pytest.approx(0.1353, abs=1e-4)
    assert scale["blocks.38.mlp"] == pytest.approx(0.95)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"min_lr": 1.0},
        {"warmup_steps": 111},
        {"betas": (0.9, 1.0)},
        {"layer_decay": 0.0},
        {"clip_norm": 0.0},
    ],
)
def test_impossible_numbers_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"optim.{next(iter(wrong))}"):
        config(**wrong)


def test_a_step_moves_only_what_trains() -> None:
    model = image_text_model()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = build_adamw(parameter_groups(model.named_parameters(), 2, config()), config())
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad


SIZES = "the tensors that its optimiser updates are 2 (decay), 3 (no decay), those of this run "


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"lr": 2e-4, "steps": 220}, None),
        ({"weight_decay": 0.1}, "it was written with optim.weight_decay=0.05, this run has 0.1"),
        ({"betas": (0.9, 0.95)}, "it was written with optim.betas=(0.9, 0.98), this run has (0.9, 0.95)"),
        ({"eps": 1e-6}, "it was written with optim.eps=1e-08, this run has 1e-06"),
        ({"weight_decay": 0.0}, SIZES + "5 (no decay)"),
        ({"layer_decay": 0.5}, SIZES + "1 (decay, lr x 0.5), 2 (no decay, lr x 0.5), 1 (decay), 1 (no decay)"),
    ],
)  # fmt: skip
def test_a_saved_optimiser_that_did_otherwise_is_told_apart(change: dict[str, object], words: str | None) -> None:
    """PyTorch would take the saved numbers, or moments of other tensors, without a word."""
    shapes = {"vision_model.blocks.0.a.weight": (2, 2), "vision_model.blocks.0.a.bias": (2,),
              "vision_model.blocks.0.b.bias": (2,), "head.weight": (2, 2), "head.bias": (2,)}  # fmt: skip
    named = [(name, torch.nn.Parameter(torch.zeros(shape))) for name, shape in shapes.items()]
    groups = [
        build_adamw(parameter_groups(named, 1, c), c).state_dict()["param_groups"] for c in (config(**change), config())
    ]
    assert optimizer_difference(*groups) == words
