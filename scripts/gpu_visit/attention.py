"""Which attention kernel runs for each shape of this project, and how long each kernel would take.

Shape letters: R rows, H heads, L queries, S keys, E head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmark.meters import Clock
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_visit.attention_calls import Call, calls_of_project
from gpu_visit.options import VisitOptions
from gpu_visit.results import Add

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
REPEATS = 3
_OPERATION = "aten::_scaled_dot_product_"
_NONE = ("No available kernel", "No viable backend")
"""How errors begin where a kernel does not do such a shape."""


def measure(options: VisitOptions, add: Add) -> None:
    """A row for each shape, the most used of each kind of pass first."""
    device = torch.device(options.device)
    for part, call in calls_of_project(options, add):
        inputs = call.inputs(device)
        row: dict[str, Any] = {"part": part, "shape": call.text, "default": default_kernel(call, inputs, device)}
        for name, backend in {"as chosen": None, **BACKENDS}.items():
            row[f"{name}, ms"] = _figure(call, inputs, device, backend)
        add("attention", **row, **exactness(call, inputs))


def default_kernel(call: Call, inputs: tuple[Tensor, ...], device: torch.device) -> str:
    """The operation that torch chooses, and the longest kernel of the device in it."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    call.run(inputs)
    with torch.profiler.profile(activities=kinds) as profile:
        call.run(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()
    events = profile.key_averages()
    names = [event.key.removeprefix(_OPERATION) for event in events if event.key.startswith(_OPERATION)]
    kernels = sorted(
        (event.self_device_time_total, event.key) for event in events if not event.key.startswith("aten::")
    )
    longest = kernels[-1][1] if kernels and kernels[-1][0] else ""
    return " ".join(filter(None, [names[0] if names else "products", longest[:60]]))


def exactness(call: Call, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """The relative error of result and gradients against float32 products, and whether anything is not finite."""
    exact = tuple(tensor.detach().float().requires_grad_(tensor.requires_grad) for tensor in inputs)
    with sdpa_kernel(SDPBackend.MATH):
        expected = call.outcomes(exact, dropout=False)
    actual = call.outcomes(inputs, dropout=False)
    errors = [float((a.float() - b).norm() / b.norm().clamp_min(1e-12)) for a, b in zip(actual, expected, strict=True)]
    finite = all(bool(tensor.isfinite().all()) for tensor in actual)
    return {"largest error": max(errors), "finite": "yes" if finite else "NO"}


def _figure(call: Call, inputs: tuple[Tensor, ...], device: torch.device, backend: SDPBackend | None) -> float | str:
    """Milliseconds of the pass, with its backward pass where it has one; or why that kernel does not run."""
    try:
        if backend is None:
            return 1e3 * _seconds(device, lambda: call.run(inputs))
        with sdpa_kernel(backend):
            return 1e3 * _seconds(device, lambda: call.run(inputs))
    except (RuntimeError, torch.OutOfMemoryError) as error:
        reason = str(error).splitlines()[0]
        return "no" if reason.startswith(_NONE) else reason[:60]


def _seconds(device: torch.device, act: Callable[[], object]) -> float:
    act()
    clock, seconds = Clock(device), []
    for _ in range(REPEATS):
        clock.start()
        act()
        clock.mark("act")
        seconds.append(clock.parts()["act"])
    return min(seconds)
