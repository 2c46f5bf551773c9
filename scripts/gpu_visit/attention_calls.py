"""The calls of attention that the project's passes make, recorded while they run with one or two layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from benchmark.generation import PROMPT
from benchmark.options import precision_type
from benchmark.random_text import random_prompts
from benchmark.stages import stage_of
from plain import no_mark
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from blip2_train.config.compose import instantiate
from gpu_visit.options import VisitOptions
from gpu_visit.recipes import benchmark_options, recipe, workload
from gpu_visit.results import Add

_NEW_TOKENS = 3
"""Generated for the record; each further one makes the same call on one more key."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Attention of one shape."""

    query: tuple[int, ...]
    """`(R, H, L, E)`."""
    key: tuple[int, ...]
    """`(R, H, S, E)`."""
    dtype: torch.dtype
    mask: Tensor | None
    """Broadcastable to `(R, H, L, S)`; of bool or of numbers that are added."""
    causal: bool
    dropout: float
    trains: bool
    """Whether a backward pass follows."""
    grouped: bool
    """Whether there are fewer heads of keys than of queries."""

    @property
    def text(self) -> str:
        """The shape in a few words."""
        query, key = ("x".join(map(str, shape)) for shape in (self.query, self.key))
        mask = "" if self.mask is None else f", mask {'x'.join(map(str, self.mask.shape))} {_name(self.mask.dtype)}"
        marks = "".join(
            f", {mark}"
            for mark, on in (("causal", self.causal), ("dropout", self.dropout), ("backward", self.trains))
            if on
        )
        return f"{query} on {key} {_name(self.dtype)}{mask}{marks}"

    def inputs(self, device: torch.device) -> tuple[Tensor, ...]:
        """Random query, key and value in the layout that projections have: heads beside each other in memory."""
        generator = torch.Generator(device).manual_seed(0)
        tensors = []
        for rows, heads, length, size in (self.query, self.key, self.key):
            values = torch.randn(rows, length, heads, size, generator=generator, device=device, dtype=self.dtype)
            tensors.append(values.transpose(1, 2).requires_grad_(self.trains))
        return tuple(tensors)

    def attend(self, inputs: tuple[Tensor, ...], dropout: bool = True) -> Tensor:
        """The result `(R, H, L, E)`."""
        mask = self.mask
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(inputs[0].dtype)
        chance = self.dropout if dropout else 0.0
        more: dict[str, Any] = {"enable_gqa": True} if self.grouped else {}
        query, key, value = inputs
        return F.scaled_dot_product_attention(query, key, value, mask, chance, self.causal, **more)

    def run(self, inputs: tuple[Tensor, ...]) -> None:
        """The pass, and its backward pass where it has one."""
        with torch.set_grad_enabled(self.trains):
            result = self.attend(inputs)
            if self.trains:
                torch.autograd.grad(result, inputs, torch.ones_like(result))

    def outcomes(self, inputs: tuple[Tensor, ...], dropout: bool) -> list[Tensor]:
        """The result, and the gradients of a fixed random weighting of it."""
        with torch.set_grad_enabled(self.trains):
            result = self.attend(inputs, dropout)
            if not self.trains:
                return [result]
            generator = torch.Generator(result.device).manual_seed(1)
            weights = torch.randn(result.shape, generator=generator, device=result.device).to(result.dtype)
            return [result.detach(), *torch.autograd.grad(result, inputs, weights)]


class Recorder(TorchFunctionMode):
    """Keeps the calls of `scaled_dot_product_attention` with different shapes, while it is active."""

    def __init__(self, autocast: torch.dtype) -> None:
        super().__init__()
        self.calls: dict[str, Call] = {}
        self._autocast = autocast

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, and look at what it was given."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            call = self._call(*args, **kwargs)
            self.calls.setdefault(call.text, call)
        return func(*args, **kwargs)

    def _call(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Call:
        cast = torch.is_autocast_enabled(query.device.type)
        return Call(
            query=tuple(query.shape),
            key=tuple(key.shape),
            dtype=self._autocast if cast else query.dtype,
            mask=None if attn_mask is None else attn_mask.detach().clone(),
            causal=is_causal,
            dropout=dropout_p,
            trains=torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value)),
            grouped=enable_gqa,
        )


def calls_of_project(options: VisitOptions, add: Add) -> Iterator[tuple[str, Call]]:
    """Each call with its part: training of both stages and of a trained tower, and beam search.

    A recipe whose passes fail gets a row that says why.
    """
    size, shallow = workload(options), "model.qformer.num_layers=2"
    tower = "model.vision.overrides={depth: 3}"
    layers = "model.language.architecture.num_hidden_layers=1"
    both = ["model.language.architecture.num_layers=1", "model.language.architecture.num_decoder_layers=1"]
    seen: set[str] = set()
    for part, name, batch, settings in (
        ("stage 1", size.stage1, size.batches[0], []),
        ("stage 2", size.stage2, size.stage2_batch, [layers]),
        ("encoder-decoder", size.encoder_decoder, size.stage2_batch, both),
        ("trained tower", size.trained_tower, max(2, size.stage2_batch // 8), [layers]),
    ):
        kept = [] if options.small else [tower, shallow, *settings]  # the demo's sizes belong to its files
        try:
            calls = _calls(options, name, batch, kept)
        except Exception as error:
            add("attention", part=part, shape=f"{type(error).__name__}: {str(error)[:300]}")
            continue
        for text, call in calls.items():
            if text not in seen:
                seen.add(text)
                yield part, call


def _calls(options: VisitOptions, name: str, batch: int, settings: list[str]) -> dict[str, Call]:
    """The calls of a training step, and of beam search where the recipe's model generates text."""
    config, bench = recipe(name, batch, *settings), benchmark_options(options, batch, new_tokens=_NEW_TOKENS)
    stage, device, dtype = stage_of(config), torch.device(options.device), precision_type(bench.precision)
    torch.manual_seed(0)
    with device:
        model = stage.build_model(config, bench)
    stage.use_precision(model, bench)
    objective = instantiate(config.objective)
    (plan,) = stage.build_plans(("labelled",) if "language" in config.model else ("shared",), model, objective)
    sample = stage.synthetic_batch(model, bench, config.max_text_length, torch.Generator().manual_seed(0)).to(device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), Recorder(dtype) as recorder:
        loss = plan.forward(sample, no_mark)
        assert loss is not None and torch.isfinite(loss)
        work = stage.generation_workload(("labelled",), model, bench)
        for generated in work.plans if work else ():
            generated.forward(_unequal_prompts(model, batch).to(device), no_mark)
    return recorder.calls


def _unequal_prompts(model: Any, count: int) -> Any:
    """Images and prompts of different lengths, which are padded on the left."""
    return random_prompts(model, torch.arange(count) % PROMPT + 1, torch.Generator().manual_seed(0))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.").replace("float", "fp").replace("bfp", "bf")
