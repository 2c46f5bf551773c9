"""A way to run a step, and what plans of every stage have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from plain import Mark
from torch import Tensor, nn

from blip2_train.models.tower_quantization import quantize_tower
from blip2_train.system.extras import import_extra

Forward = Callable[[Any, Mark], Tensor | None]
TOWER_PLANS = {
    "tower": "the vision tower alone",
    "tower_compiled": "the vision tower alone, by torch.compile",
    "tower_8_bits": "the vision tower alone, its linear layers in 8 bits (extra quantization)",
}
_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One way to run a step."""

    name: str
    about: str
    """What it is, in a few words."""
    forward: Forward
    """From a batch to the loss, or to None where nothing trains; marks the end of each part."""
    group: str = "step"
    """Plans of one group have the same result; each is compared with the first of its group."""
    tower: nn.Module | None = None
    """The vision tower, where that alone is run."""


@contextmanager
def marked(mark: Mark, ends: Mapping[str, nn.Module], begins: Mapping[str, nn.Module] | None = None) -> Iterator[None]:
    """Mark the ends of parts while something runs.

    Args:
        mark: Called with the name of each part that ends.
        ends: Parts that end where a module returns.
        begins: Parts that end where a module is called.
    """
    hooks = [module.register_forward_hook(lambda *_, part=part: mark(part)) for part, module in ends.items()]
    hooks += [
        module.register_forward_pre_hook(lambda *_, part=part: mark(part)) for part, module in (begins or {}).items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def tower_plan(name: str, model: Any, compiled: CompiledOnce, count_only: bool = False) -> Plan:
    """The vision tower of a model alone: as it is, compiled, or a copy of it in 8 bits."""
    tower = compiled().vision_model if name == "tower_compiled" else model.vision_model
    if name == "tower_8_bits" and not count_only:
        import_extra("torchao", f"plan {name}", "or leave the plan out")
        tower = copy.deepcopy(tower)
        quantize_tower(tower, "int8")

    def forward(batch: Any, mark: Mark) -> None:
        tower(batch.pixel_values)
        mark("vision")

    return Plan(name=name, about=TOWER_PLANS[name], forward=forward, group="tower", tower=tower)


class CompiledOnce:
    """A model's twin with the same weights, compiled when it is used first.

    Tower and Q-Former are compiled whole, a language model layer by layer, which takes a tenth of the time.

    Args:
        model: The model.
        pretend: Give the model itself (for counting on tensors without values).
    """

    def __init__(self, model: Any, pretend: bool) -> None:
        self._model, self._pretend, self._made = model, pretend, None

    def __call__(self) -> Any:
        """The compiled twin."""
        if self._pretend:
            return self._model
        if self._made is None:
            view = _view(self._model)
            view.vision_model = torch.compile(self._model.vision_model)
            view.qformer = torch.compile(self._model.qformer)
            if "language_model" in view._modules:
                view.language_model = _by_layer(self._model.language_model)
            self._made = view
        return self._made


def _by_layer(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.ModuleList):
        return nn.ModuleList(torch.compile(layer) for layer in module)  # type: ignore[misc]
    view = _view(module)
    view._modules = {name: child and _by_layer(child) for name, child in module._modules.items()}
    return view


def _view(module: _Model) -> _Model:
    """Another module with the very same parameters, whose submodules can be replaced."""
    view = copy.copy(module)
    view._modules = dict(module._modules)
    return view
