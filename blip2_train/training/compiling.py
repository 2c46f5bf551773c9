"""Compiles a model's passes by torch.compile while it trains: the tower block by block, the Q-Former pass by pass.

What is compiled stands in its place for the length of a training batch only, as `forward` of the module itself: names
of weights, checkpoints, exports, validation and copies of the model are as without it. Random numbers are those of the
uncompiled model, dropout included. How torch splits graphs for data parallelism is a private setting of its compiler.
Tried with torch 2.14.1.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from blip2_train.errors import ConfigError, TrainingError
from blip2_train.system.error_reasons import reason_of
from blip2_train.training.module import TrainingModule
from blip2_train.training.sharding import ShardedStrategy
from blip2_train.types import ImageKeyValues

_RECOMPILATIONS = 64
"""Versions of one function that torch keeps before it gives up; each kind of pass needs up to three."""
Function = Callable[..., Any]


class CompilePasses(Callback):
    """Runs a model's passes compiled, each as one graph; a text of another length makes no new one.

    The Q-Former is compiled once for each kind of pass (image, text, matching, generation), because each runs another
    part of it. The language model of stage 2 stays as it is. On the first steps torch compiles, which takes minutes.

    Args:
        backend: torch's: `inductor` makes kernels, `eager` and `aot_eager` only record what would be compiled.
            `eager` samples other dropout when activations are computed again, and is refused with such a Q-Former.
    """

    def __init__(self, backend: str | Function = "inductor") -> None:
        self.backend = backend
        self._replaced: dict[nn.Module, Function] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Prepare what will be compiled when it first runs.

        Raises:
            ConfigError: if the model is sharded, or its gradients would be wrong.
        """
        assert isinstance(pl_module, TrainingModule)
        if isinstance(trainer.strategy, ShardedStrategy):
            raise ConfigError(
                "trainer.compile=true does not go with trainer=fsdp, which gathers weights while a block runs; pass "
                "trainer.compile=false, or trainer=ddp"
            )
        if self.backend == "eager" and pl_module.model.qformer.gradient_checkpointing:
            raise ConfigError(
                "backend eager does not go with model.qformer.gradient_checkpointing=true: dropout is sampled anew "
                "when activations are computed again; use backend aot_eager or inductor"
            )
        torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, _RECOMPILATIONS)
        torch._dynamo.config.optimize_ddp = False
        self._replaced = compiled_passes(pl_module.model, self.backend)

    def on_train_batch_start(self, *_: Any) -> None:
        """Put the compiled passes in their places."""
        for part, compiled in self._replaced.items():
            part.forward = compiled

    def on_train_batch_end(self, *_: Any) -> None:
        """Take them away."""
        for part in self._replaced:
            vars(part).pop("forward", None)

    def on_exception(self, *_: Any) -> None:
        """Take them away also when a batch does not come to its end."""
        self.on_train_batch_end()


def compiled_passes(model: Any, backend: str | Function = "inductor") -> dict[nn.Module, Function]:
    """What takes the place of the `forward` of each part that is compiled; a tower that reads features is not.

    Args:
        model: A `Blip2Model`.
        backend: Of torch.compile.
    """
    passes: dict[nn.Module, Function] = {model.qformer: _ByKind(model.qformer.forward, backend)}
    tower = model.vision_model
    for block in [] if tower.reads_features else tower.blocks:  # one graph for all of them
        passes[block] = _in_one_line(_compile(block.forward, backend), "a block of the vision tower")
    return passes


class _ByKind:
    """A function that is compiled anew for each kind of call, so that torch keeps the versions of each apart."""

    def __init__(self, function: Function, backend: str | Function) -> None:
        self._function, self._backend = function, backend
        self._compiled: dict[Any, Function] = {}

    def __call__(self, *values: Any, **named: Any) -> Any:
        kind = (torch.is_grad_enabled(), *map(_kind, values), *((name, _kind(named[name])) for name in sorted(named)))
        if kind not in self._compiled:
            compiled = _compile(self._function, self._backend, apart=True)
            self._compiled[kind] = _in_one_line(compiled, "a pass of the Q-Former")
        return self._compiled[kind](*values, **named)


def _kind(value: Any) -> Any:
    """What decides which operations run: numbers, whether something is there, and how images are shared."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, ImageKeyValues):
        return value.copies
    if isinstance(value, list):
        return tuple(map(_kind, value))
    return type(value).__name__


def _compile(function: Function, backend: str | Function, apart: bool = False) -> Function:
    options: dict[str, Any] = {}
    if backend == "inductor":
        options["options"] = {"fallback_random": True}
    if apart and "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        options["isolate_recompiles"] = True
    compiled: Function = torch.compile(function, fullgraph=True, backend=backend, **options)
    return compiled


def _in_one_line(compiled: Function, what: str) -> Function:
    """The same function; what its compiler cannot do becomes one line."""

    def run(*values: Any, **named: Any) -> Any:
        try:
            return compiled(*values, **named)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            problem = f"torch {torch.__version__} cannot compile {what} here ({reason_of(error, 300)})"
        raise TrainingError(f"trainer.compile=true: {problem}; pass trainer.compile=false")

    return run
