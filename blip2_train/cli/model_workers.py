"""The processes in which commands over whole data sets run models, on this machine or on a cluster."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from blip2_train.data.prepare.engine import Engine, EngineName, LocalEngine, cores, open_engine
from blip2_train.errors import ConfigError
from blip2_train.system.devices import find_device


@dataclass(frozen=True, kw_only=True)
class ModelWorkers:
    """How many processes run models, and where; settings of such a command."""

    batch_size: int = 16
    device: str | None = None
    workers: int | None = None
    """Processes; None = one for each GPU, else one for each core; of a cluster as many as it has room for."""
    engine: EngineName = "local"
    ray_address: str | None = None
    gpus_per_worker: float = 0
    """Of workers of Ray."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        gpus = self.gpus_per_worker
        if gpus < 0 or (gpus > 1 and gpus % 1):
            raise ConfigError(f"gpus_per_worker must be 0, a part of 1, or a whole number, got {gpus:g}")
        if gpus and self.engine == "local":
            raise ConfigError(
                f"gpus_per_worker={gpus:g} is for engine=ray; processes of this machine divide its GPUs anyway"
            )
        if not gpus and self.engine == "ray" and (self.device or "").startswith("cuda"):
            raise ConfigError(f"device={self.device} needs gpus_per_worker=1, or a part of 1: what Ray gives each")

    @property
    def worker_device(self) -> str | None:
        """Where models run; Ray may show GPUs to workers that requested none."""
        unasked = self.engine == "ray" and not self.gpus_per_worker and self.device in (None, "auto")
        return "cpu" if unasked else self.device

    @contextmanager
    def engines(self, shared: Sequence[str]) -> Iterator[tuple[Engine, Engine]]:
        """What reads images, and what holds models; of Ray one for both, whose machines must see `shared`."""
        workers, gpus = self.workers, self.gpus_per_worker
        if workers is None and gpus and self.ray_address is None:
            workers = max(1, int(torch.cuda.device_count() / gpus + 1e-9))
        with open_engine(
            self.engine, workers, ray_address=self.ray_address, gpus_per_worker=gpus, shared=shared
        ) as engine:
            local = self.engine == "local"
            yield engine, LocalEngine(workers or self.models_at_once) if local else engine

    @property
    def models_at_once(self) -> int:
        """Processes of this machine that hold models, if no number is given: one for each GPU, or for each core."""
        if self.device not in (None, "auto", "cuda"):
            return cores() if self.device == "cpu" else 1
        return torch.cuda.device_count() or (1 if torch.backends.mps.is_available() else cores())


def own_device(name: str | None) -> torch.device:
    """The device of this process: of several GPUs one by its number among the processes of a pool."""
    device = find_device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    number = re.search(r"\d+$", multiprocessing.current_process().name)
    return torch.device("cuda", int(number.group()) % torch.cuda.device_count() if number else 0)
