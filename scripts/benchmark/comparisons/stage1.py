"""Stage 1's Q-Former at the paper's size: packed texts beside padded ones, checkpointing, and the released code's plan.

Images are random patch features, 257 × 1408, for the same whatever the plan. Shape letters: B batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

import torch
from omegaconf import DictConfig
from plain import PlainReference
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.comparisons.comparison import Comparison
from benchmark.options import BenchmarkOptions
from benchmark.plans import Forward
from benchmark.representation import RepresentationStage, given_lengths, random_batch
from blip2_train.config.compose import compose, instantiate
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.step_memory import kept_bytes
from blip2_train.types import ImageTextBatch

GLOBAL_BATCH = 1680
"""Of the paper; texts are padded to the longest of it."""
TOWER = 520.7e9
"""Operations of ViT-g on an image of 224 pixels."""
_COUNTED, _TIMED, _TURNS = 32, 8, 2
"""Samples of a step that is counted, of one that is timed, and how often each plan runs then."""
_STAGE = RepresentationStage()
_MIB = 2**20


def web_lengths(count: int, generator: torch.Generator) -> Tensor:
    """Tokens `(count,)` of captions of the web: 16 to 17 on average, many short ones, some cut at 32."""
    return (2.7 + 0.5 * torch.randn(count, generator=generator)).exp().round().clamp(5, 32).long()


def coco_lengths(count: int, generator: torch.Generator) -> Tensor:
    """Tokens `(count,)` of captions of COCO: N(12, 2.5)."""
    return (12 + 2.5 * torch.randn(count, generator=generator)).round().clamp(5, 32).long()


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Texts of a global batch."""

    name: str
    mean: float
    """Tokens."""
    longest: int
    """Tokens."""


def compare() -> list[Comparison]:
    """Operations and kept bytes counted, times measured on a batch of eight."""
    config = compose(["experiment=stage1_vit_g", "init_from=null"])
    generator = torch.Generator().manual_seed(0)
    drawn = {"web": web_lengths(GLOBAL_BATCH, generator), "coco": coco_lengths(GLOBAL_BATCH, generator)}
    lengths = [
        Lengths(name=name, mean=tokens.double().mean().item(), longest=int(tokens.max()))
        for name, tokens in drawn.items()
    ]
    counted = Counted(config)
    return [
        *(compare_padding(counted, some, target) for some, target in zip(lengths, (0.79, 0.85), strict=True)),
        *(compare_released(counted, some, target) for some, target in zip(lengths, (0.55, 0.46), strict=True)),
        compare_kept(counted, lengths[0]),
        *compare_times(config),
    ]


class Counted:
    """Counts the operations of steps at the recipe's size, on tensors without values.

    Args:
        config: The recipe.
    """

    def __init__(self, config: DictConfig) -> None:
        self._config, self._objective = config, instantiate(config.objective)
        self._flops: dict[tuple[str, Lengths | None, bool], float] = {}
        with torch.device("meta"):
            empty = _model(config)
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode:
            self._model = empty.to_empty(device="cpu")

    def flops(self, plan: str, lengths: Lengths | None, checkpointing: bool = False) -> float:
        """Operations of a sample, forward and backward, attention as plain matrix products; None = padded to 32."""
        key = (plan, lengths, checkpointing)
        if key not in self._flops:
            with self._step(*key) as step, FlopCounterMode(display=False) as counter:
                torch.autograd.backward(step())
            self._flops[key] = counter.get_total_flops() / _COUNTED
        return self._flops[key]

    def kept(self, lengths: Lengths, checkpointing: bool) -> float:
        """Bytes of a sample that the forward pass keeps, without weights."""
        with self._step("shared", lengths, checkpointing) as step:
            return kept_bytes(step, self._model) / _COUNTED

    @contextmanager
    def _step(self, plan: str, lengths: Lengths | None, checkpointing: bool) -> Iterator[Callable[[], Tensor]]:
        longest = self._config.max_text_length if lengths is None else lengths.longest
        mean = lengths.mean if lengths is not None and plan == "shared" else longest
        texts = torch.full((_COUNTED,), longest)
        batch = random_batch(self._model, texts, longest, torch.Generator().manual_seed(0))
        self._model.qformer.gradient_checkpointing = checkpointing
        self._model.qformer_config = replace(self._model.qformer_config, pack_text=plan == "shared")
        with self._mode, sdpa_kernel(SDPBackend.MATH), given_lengths(_COUNTED, round(_COUNTED * mean)):
            yield lambda: self._loss(plan, batch)
            self._model.zero_grad(set_to_none=True)

    def _loss(self, plan: str, batch: ImageTextBatch) -> Tensor:
        if plan == "released":
            return PlainReference(self._model, self._objective, reuse_queries=True)(batch, None)
        loss: Tensor = self._objective(self._model, batch, torch.Generator()).total
        return loss


def compare_padding(counted: Counted, lengths: Lengths, target: float) -> Comparison:
    """Packed texts beside texts padded to the longest of the global batch."""
    ours, other = (counted.flops(plan, lengths) / 1e9 for plan in ("shared", "padded"))
    return Comparison(
        name=f"packed_flops_{lengths.name}",
        what=f"stage 1, Q-Former, {lengths.name} captions of {lengths.mean:.1f} tokens, the longest {lengths.longest}",
        ours=f"{ours:.1f} GFLOP a sample",
        other=f"{other:.1f} GFLOP, texts padded to the longest",
        ratio=ours / other,
        target=target,
    )


def compare_released(counted: Counted, lengths: Lengths, target: float) -> Comparison:
    """This project's step beside the released code's plan."""
    ours, other = counted.flops("shared", lengths) / 1e9, counted.flops("released", None) / 1e9
    return Comparison(
        name=f"stage1_flops_vs_released_{lengths.name}",
        what=f"stage 1, Q-Former, {lengths.name} captions of {lengths.mean:.1f} tokens",
        ours=f"{ours:.1f} GFLOP a sample",
        other=f"{other:.1f} GFLOP, the released code's plan, texts padded to 32",
        ratio=ours / other,
        target=target,
    )


def compare_kept(counted: Counted, lengths: Lengths) -> Comparison:
    """Checkpointing of the Q-Former beside none: bytes, and what they cost."""
    ours, other = (counted.kept(lengths, checkpointing) / _MIB for checkpointing in (True, False))
    flops = [TOWER + counted.flops("shared", lengths, checkpointing) for checkpointing in (True, False)]
    return Comparison(
        name="checkpointed_bytes",
        what=f"stage 1, Q-Former recomputed: kept for the backward pass ({lengths.name} captions)",
        ours=f"{ours:.1f} MiB a sample, {100 * (flops[0] / flops[1] - 1):.1f} % more FLOP a step with ViT-g",
        other=f"{other:.1f} MiB a sample",
        ratio=ours / other,
        target=0.5,
    )


def compare_times(config: DictConfig) -> list[Comparison]:
    """CPU time of steps of eight samples, plans in alternating turns."""
    generator = torch.Generator().manual_seed(0)
    model, objective = _model(config), instantiate(config.objective)
    plans = _STAGE.build_plans(("shared", "padded", "released"), model, objective)
    shared, padded, released = (plan.forward for plan in plans)
    web = web_lengths(_TIMED, generator)
    web[0] = config.max_text_length  # practically every global batch holds one
    web_batch, coco_batch = (
        random_batch(model, lengths, config.max_text_length, generator)
        for lengths in (web, coco_lengths(_TIMED, generator))
    )
    _seconds([(shared, random_batch(model, web[:2], config.max_text_length, generator))], turns=1)  # warm up
    ours, other = _seconds([(shared, web_batch), (padded, web_batch)], _TURNS)
    coco, theirs = _seconds([(shared, coco_batch), (released, coco_batch)], _TURNS)
    return [
        Comparison(
            name="packed_time",
            what=f"stage 1, Q-Former, {_TIMED} web captions, the longest of 32 tokens: time of a step",
            ours=f"{ours:.1f} s",
            other=f"{other:.1f} s, texts padded to the longest",
            ratio=ours / other,
            target=0.85,
        ),
        Comparison(
            name="stage1_time_vs_released_coco",
            what=f"stage 1, Q-Former, {_TIMED} COCO captions: time of a step",
            ours=f"{coco:.1f} s",
            other=f"{theirs:.1f} s, the released code's plan",
            ratio=coco / theirs,
            target=0.50,
        ),
    ]


def _model(config: DictConfig) -> ImageTextModel:
    options = BenchmarkOptions(device="cpu", batch_size=_TIMED, steps=1, vision=False, precision="32")
    return _STAGE.build_model(config, options)


def _seconds(steps: Sequence[tuple[Forward, ImageTextBatch]], turns: int) -> list[float]:
    """Median processor time of each step, forward and backward, in alternating turns."""
    taken: list[list[float]] = [[] for _ in steps]
    for turn in range(turns):
        order = list(enumerate(steps))
        for index, (forward, batch) in order if turn % 2 == 0 else order[::-1]:
            began = time.process_time()
            loss = forward(batch, lambda part: None)
            assert loss is not None
            torch.autograd.backward(loss)
            taken[index].append(time.process_time() - began)
    return [median(times) for times in taken]
