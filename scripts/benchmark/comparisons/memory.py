"""What a step keeps for the backward pass, beside transformers' model and beside what was predicted."""

from __future__ import annotations

from functools import partial

import torch
from omegaconf import DictConfig
from plain import no_mark
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmark.comparisons.comparison import Comparison
from benchmark.options import BenchmarkOptions
from benchmark.stages import stage_of
from blip2_train.config.compose import compose, instantiate
from blip2_train.models.step_memory import kept_bytes

MIB = 2**20
OPT_125M = {
    "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "word_embed_proj_dim": 768,
    "vocab_size": 50272,
}  # fmt: skip


def compare() -> list[Comparison]:
    """Stage 2 with a frozen OPT of 12 layers, 4 captions of 8 to 16 tokens, float32, dropout of the Q-Former on."""
    options = BenchmarkOptions(
        device="cpu", batch_size=4, steps=1, vision=False, precision="32", tokens=(8, 16), generate=False
    )
    kept = kept_by_plans(small_stage2(), options, ("huggingface", "labelled"))
    ours, other = (kept[name] / MIB / options.batch_size for name in ("labelled", "huggingface"))
    return [
        Comparison(
            name="stage2_bytes_vs_released",
            what="stage 2, OPT 12 x 768: kept for the backward pass",
            ours=f"{ours:.1f} MiB a sample",
            other=f"{other:.1f} MiB a sample, transformers' BLIP-2 (LAVIS: 70.4)",
            ratio=ours / other,
            target=0.80,
        )
    ]


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
