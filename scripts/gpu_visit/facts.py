"""The machine, and what its device can do at best: products, copies, launches."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from benchmark.meters import Clock, matmul_ceiling

from gpu_visit.options import VisitOptions
from gpu_visit.results import Add

PACKAGES = ("torch", "torchvision", "transformers", "timm", "lightning", "hydra-core", "omegaconf", "torchao", "triton")
_QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
_REPEATS = 10


def measure(options: VisitOptions, add: Add) -> None:
    """Facts first, then figures."""
    device = torch.device(options.device)
    for what, value in machine(device).items():
        add("facts", what=what, value=value)
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        if device.type == "cuda" or dtype == torch.float32:
            add("at best", what=f"{name} product, TFLOP/s", value=matmul_ceiling(device, dtype) / 1e12)
    if device.type == "cuda":
        for name, product in _eight_bits(device).items():
            _try(add, f"{name} product, TFLOP/s", partial(_rate, device, product, 2 * 8192**3 / 1e12))
    for what, rate in copies(device).items():
        _try(add, what, rate)
    small = torch.zeros(8, device=device)
    _try(
        add,
        "launches of a small kernel, µs each",
        lambda: 1e6 * _seconds(device, lambda: [small.add_(1) for _ in range(1000)]) / 1000,
    )


def machine(device: torch.device) -> dict[str, object]:
    """What the machine says about itself."""
    facts: dict[str, object] = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            facts[name] = version(name) or "absent"
        except PackageNotFoundError:
            facts[name] = "absent"
    facts["cores"] = (
        f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}" if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    facts["main memory, GiB"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if os.path.isdir("/dev/shm"):
        shared = shutil.disk_usage("/dev/shm")
        facts["/dev/shm, MiB"] = f"{shared.free / 2**20:.0f} free of {shared.total / 2**20:.0f}"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": f"{properties.name}, sm_{properties.major}{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "device memory, GiB": properties.total_memory / 2**30,
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
            "NCCL": ".".join(map(str, torch.cuda.nccl.version())),
            "attention": ", ".join(
                f"{name} {'on' if getattr(torch.backends.cuda, f'{name}_sdp_enabled')() else 'off'}"
                for name in ("cudnn", "flash", "mem_efficient", "math")
            ),
        }
        try:
            query = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
            facts[f"nvidia-smi {_QUERY}"] = subprocess.run(
                query, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            facts["nvidia-smi"] = f"{error}"
    return facts


def copies(device: torch.device) -> dict[str, Callable[[], float]]:
    """Bandwidths in GB/s, by what is copied."""

    def rate(source: torch.device, size: int, moved: int, pinned: bool = False) -> float:
        data = torch.ones(size // 4, device=source, pin_memory=pinned)
        target = torch.empty(size // 4, device=device)
        return moved * size / _seconds(device, lambda: target.copy_(data, non_blocking=True)) / 1e9

    host, large = torch.device("cpu"), 2**32 if device.type == "cuda" else 2**26
    rates = {"copy on the device, GB/s read and written": lambda: rate(device, large, 2)}
    if device.type == "cuda":
        rates["copy to the device from pinned memory, GB/s"] = lambda: rate(host, 2**28, 1, pinned=True)
        rates["copy to the device from pageable memory, GB/s"] = lambda: rate(host, 2**28, 1)
    return rates


def _eight_bits(device: torch.device) -> dict[str, Callable[[], object]]:
    """Square products of 8192 in 8 bits, as far as torch and the device have them."""
    whole = torch.randint(-100, 100, (8192, 8192), device=device, dtype=torch.int8)
    scale, kind = torch.ones((), device=device), torch.float8_e4m3fn
    values = (whole / 100).to(kind)
    product: Any = torch._scaled_mm
    return {
        "int8": lambda: torch._int_mm(whole, whole.t()),
        "float8": lambda: product(values, values.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16),
    }


def _seconds(device: torch.device, act: Callable[[], object]) -> float:
    """The shortest of several runs."""
    act()
    clock, seconds = Clock(device), []
    for _ in range(_REPEATS):
        clock.start()
        act()
        clock.mark("act")
        seconds.append(clock.parts()["act"])
    return min(seconds)


def _rate(device: torch.device, act: Callable[[], object], amount: float) -> float:
    return amount / _seconds(device, act)


def _try(add: Add, what: str, measured: Callable[[], float]) -> None:
    """A figure, or why there is none: a device need not have everything."""
    try:
        add("at best", what=what, value=measured())
    except Exception as error:
        add("at best", what=what, value=f"{type(error).__name__}: {str(error)[:200]}")
