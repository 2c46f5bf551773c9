"""Beam search after an image and a prompt, beside transformers' BLIP-2 with the same weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from plain import no_mark

from benchmark.agreement import prove_ids
from benchmark.comparisons.comparison import Comparison
from benchmark.comparisons.memory import small_stage2
from benchmark.counting import count_generation
from benchmark.generation import PROMPT
from benchmark.huggingface import share_weights
from benchmark.options import BenchmarkOptions
from benchmark.plans import Plan
from benchmark.random_text import random_prompts
from benchmark.stages import stage_of
from benchmark.text_generation import as_plan, ours, theirs
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel

IMAGES, TURNS = 4, 3
SEARCH = GenerationOptions(num_beams=5, min_new_tokens=20, max_new_tokens=20)


def compare() -> list[Comparison]:
    """Four images, a Q-Former of paper size, an OPT of 12 layers, a prompt of 4 tokens, 20 new ones, 5 beams."""
    options = BenchmarkOptions(device="cpu", batch_size=IMAGES, steps=1, vision=False, precision="32")
    config = small_stage2()
    torch.manual_seed(0)
    model = stage_of(config).build_model(config, options).eval()
    assert isinstance(model, GenerativeModel)
    lengths, generator = torch.full((IMAGES,), PROMPT), torch.Generator().manual_seed(0)
    batch = random_prompts(model, lengths, generator)
    ways = {"ours": ours(model, SEARCH), "transformers": theirs(model, share_weights(model), SEARCH)}
    prove_ids("5 beams", {name: write(batch, no_mark) for name, write in ways.items()})
    plans = [as_plan(name, "", "5 beams", write) for name, write in ways.items()]
    one = random_prompts(model, lengths[:1], generator)
    flops = {name: sum(parts.values()) / 1e9 for name, parts in count_generation(plans, one, model).items()}
    seconds = {name: taken / IMAGES for name, taken in timed(plans, lambda plan: plan.forward(batch, no_mark)).items()}
    what = "20 tokens by 5 beams, OPT 12 x 768, 32 queries and 4 tokens"
    return [
        Comparison(
            name="beam_flops",
            what=what,
            ours=f"{flops['ours']:.1f} GFLOP an image",
            other=f"{flops['transformers']:.1f} GFLOP, transformers' BLIP-2",
            ratio=flops["ours"] / flops["transformers"],
            target=0.65,
        ),
        Comparison(
            name="beam_time",
            what=what,
            ours=f"{seconds['ours']:.2f} CPU s an image",
            other=f"{seconds['transformers']:.2f} CPU s, transformers' BLIP-2",
            ratio=seconds["ours"] / seconds["transformers"],
            target=0.80,
        ),
    ]


def timed(plans: Sequence[Plan], run: Callable[[Plan], object]) -> dict[str, float]:
    """Median processor seconds of each plan, in turns that go forwards and backwards."""
    taken: dict[str, list[float]] = {plan.name: [] for plan in plans}
    for turn in range(TURNS):
        for plan in plans if turn % 2 == 0 else reversed(plans):
            started = time.process_time()
            run(plan)
            taken[plan.name].append(time.process_time() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}
