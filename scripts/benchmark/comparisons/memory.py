"""What a step keeps for the backward pass, beside transformers' model and beside what was predicted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from omegaconf import DictConfig
from plain import no_mark
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmark.comparisons.comparison import Comparison
from benchmark.options import BenchmarkOptions
from benchmark.stages import stage_of
from blip2_train.config.compose import compose, instantiate
from blip2_train.models.step_memory import Kept, kept_bytes
from blip2_train.training.planned_memory import autocast, full_batch, plan_step

MIB = 2**20
OPT_125M = {
    "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "word_embed_proj_dim": 768,
    "vocab_size": 50272,
}  # fmt: skip


def compare() -> list[Comparison]:
    """Stage 2 beside transformers' model, and the plan of steps beside what hooks count on a CPU."""
    return [compare_stage2(), compare_prediction()]


def compare_stage2() -> Comparison:
    """A frozen OPT of 12 layers, 4 captions of 8 to 16 tokens, float32, dropout of the Q-Former on."""
    options = BenchmarkOptions(
        device="cpu", batch_size=4, steps=1, vision=False, precision="32", tokens=(8, 16), generate=False
    )
    kept = kept_by_plans(small_stage2(), options, ("huggingface", "labelled"))
    ours, other = (kept[name] / MIB / options.batch_size for name in ("labelled", "huggingface"))
    return Comparison(
        name="stage2_bytes_vs_released",
        what="stage 2, OPT 12 x 768: kept for the backward pass",
        ours=f"{ours:.1f} MiB a sample",
        other=f"{other:.1f} MiB a sample, transformers' BLIP-2 (LAVIS: 70.4)",
        ratio=ours / other,
        target=0.80,
    )


def compare_prediction() -> Comparison:
    """Plans made from micro-batches of 32 and 64 without values, beside real steps of 2; the worst of three counts."""
    measured = {name: (predicted, counted) for name, predicted, counted in predictions()}
    worst = max(measured, key=lambda name: abs(measured[name][0] / measured[name][1] - 1.0))
    predicted, counted = measured[worst]
    return Comparison(
        name="memory_prediction",
        what=f"planned memory of a step, worst of {', '.join(measured)}",
        ours=f"{worst}: {predicted / MIB:.1f} MiB planned",
        other=f"{counted / MIB:.1f} MiB, counted by hooks in a real step",
        ratio=predicted / counted,
        target=1.1,
        bound="within",
    )


def predictions() -> Iterator[tuple[str, int, int]]:
    """Name, and bytes kept for the backward pass as planned and as counted, of a step with two samples.

    Q-Formers of full size behind a few blocks of ViT-g: stage 1 in float32, stage 2 with a frozen OPT of 4 layers under
    bfloat16 autocast, captions with a tower that trains and computes its blocks again.
    """
    blocks = "model.vision.overrides.depth"
    sizes = OPT_125M | {"num_hidden_layers": 4, "vocab_size": 5000}
    opt = [f"model.language.architecture.{name}={value}" for name, value in sizes.items()]
    small = [*opt, "init_from=null", "model.language.weights=random", "model.language.dtype=bfloat16"]
    recipes = {
        "stage 1": (["experiment=stage1_vit_g", f"{blocks}=2", "model.vision.dtype=float32"], "32-true"),
        "stage 2": (
            ["experiment=stage2_vit_g_opt_2.7b", f"{blocks}=2", "model.vision.dtype=bfloat16", *small],
            "bf16-mixed",
        ),
        "captions": (["experiment=caption_coco_opt_2.7b", f"{blocks}=3", "image_size=224", *small], "32-true"),
    }
    for name, (settings, precision) in recipes.items():
        config = compose([*settings, "model.vision.weights=random", "model.qformer.weights=random"])
        objective, length, size = instantiate(config.objective), config.max_text_length, 2
        with torch.device("meta"):
            empty = instantiate(config.model)
        predicted = plan_step(empty, objective, length, precision, on_gpu=False).kept(size)
        model = empty.to_empty(device="cpu").train()
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(0.01)  # sampling them takes longer than the step
        batch, kept = full_batch(model, objective.batch_type, size, length), Kept(model)
        with kept.counting(), autocast(precision):
            objective(model, batch, torch.Generator().manual_seed(0))
        yield name, predicted, kept.bytes


def small_stage2() -> DictConfig:
    """Stage 2 of the paper with the smallest published OPT."""
    sizes = [f"model.language.architecture.{name}={value}" for name, value in OPT_125M.items()]
    return compose(["experiment=stage2_vit_g_opt_2.7b", "init_from=null", *sizes])


def kept_by_plans(config: DictConfig, options: BenchmarkOptions, names: tuple[str, ...]) -> dict[str, int]:
    """Bytes that the forward pass of each plan keeps, counted on tensors without values."""
    stage = stage_of(config)
    with torch.device("meta"):
        empty = stage.build_model(config, options)
    batch = stage.synthetic_batch(empty, options, config.max_text_length, torch.Generator().manual_seed(0))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = empty.to_empty(device="cpu")
        plans = stage.build_plans(names, model, instantiate(config.objective), count_only=True)
        model.train()
        return {plan.name: kept_bytes(partial(plan.forward, batch, no_mark), model) for plan in plans}
