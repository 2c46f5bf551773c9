"""Which of Lightning's trainer options a run has; what this project does itself is refused with its own setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from blip2_train.errors import ConfigError, refuse
from blip2_train.models.attention_kernels import check_kernels_off, turn_kernels_off

if TYPE_CHECKING:  # printing a configuration needs no Lightning
    import lightning
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.strategies import Strategy

_PROGRESS = "the progress line, the log and the curves are always there; log_every sets how often a loss is logged"
_ORDER = "the order of samples follows from seed and the data, on any number of processes (data.shuffle_block, …)"
_LENGTH = "the length of a run is steps=<optimiser steps>"
REPLACED = {
    "gradient_clip_val": "gradients are clipped by optim.clip_norm=<largest norm>",
    "gradient_clip_algorithm": "gradients are clipped by their norm: optim.clip_norm=<largest norm>",
    "max_epochs": _LENGTH,
    "min_epochs": _LENGTH,
    "min_steps": _LENGTH,
    "max_steps": _LENGTH,
    "max_time": f"{_LENGTH}; to stop by the clock send SIGUSR1, which saves the run (timeout -s USR1 8h python …)",
    "accumulate_grad_batches": "micro-batches of a step are accumulate=<number>",
    "fast_dev_run": "a few steps through the whole path are debug=fast",
    "limit_train_batches": f"{_LENGTH}; a few steps through the whole path are debug=fast",
    "limit_val_batches": "validation takes data.validation_samples=<images>, or data.holdout=<samples> without a set "
    "of its own; validate_every=null is none",
    "limit_test_batches": "models are evaluated by scripts/evaluate.py",
    "limit_predict_batches": "predictions are made by scripts/predict.py",
    "val_check_interval": "validation is every validate_every=<optimiser steps>",
    "check_val_every_n_epoch": "validation is every validate_every=<optimiser steps>",
    "num_sanity_val_steps": "debug=fast validates after two steps",
    "log_every_n_steps": "losses are logged every log_every=<optimiser steps>",
    "enable_progress_bar": _PROGRESS,
    "enable_model_summary": "scripts/describe.py shows the model",
    "enable_checkpointing": "checkpoints are written every checkpoint_every=<optimiser steps>, and "
    "callbacks.checkpoint.keep=<number> of them stay",
    "default_root_dir": "the folder of a run is paths.run_dir, below paths.output_dir",
    "logger": "loggers are an option: logger=csv, tensorboard or wandb",
    "enable_autolog_hparams": "loggers are an option: logger=csv, tensorboard or wandb",
    "model_registry": "a finished run lies in its folder as export/; scripts/export.py makes one of a checkpoint",
    "callbacks": "callbacks are added by name: callbacks.<name>._target_=<class>",
    "plugins": "several processes are trainer=ddp, or trainer=fsdp for a sharded model; numbers are trainer.precision",
    "use_distributed_sampler": _ORDER,
    "reload_dataloaders_every_n_epochs": _ORDER,
    "sync_batchnorm": "no model here trains a batch norm",
    "inference_mode": "validation never keeps gradients",
    "barebones": "speed is measured by scripts/benchmark.py and scripts/doctor.py",
}
"""Lightning's other trainer options, and what a run of this project has in their place."""


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """On what a run trains, and how it is looked into: all that may be set of Lightning's trainer."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int | list[int] | str = 1
    """Processes on this machine (-1 or `auto`: one for each device), or the numbers of the GPUs to use."""
    num_nodes: int = 1
    """Machines, on each of which a launcher starts the processes."""
    strategy: str | Strategy = "auto"
    """`auto` for one process, else one of this project's."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Of the computation; trained weights are kept in 32 bits."""
    max_steps: int
    """Optimiser steps."""
    accumulate_grad_batches: int = 1
    """Micro-batches per optimiser step."""
    deterministic: bool | Literal["warn"] | None = None
    """Whether operations that are not reproducible are refused, or warned of."""
    benchmark: bool | None = None
    """Whether cuDNN tries out algorithms."""
    detect_anomaly: bool = False
    """Whether autograd names the operation whose gradient is NaN (slow)."""
    overfit_batches: int = 0
    """Micro-batches that are trained on again and again; 0 = the data."""
    profiler: Literal["simple", "advanced"] | None = None
    """Prints where the time went."""
    vision_quantization: str = "none"
    """`int8` or `float8`: a frozen tower computes in 8 bits (extra `quantization`)."""
    compile: bool = False
    """Whether the tower's blocks and the Q-Former's passes are compiled by torch.compile."""
    attention_kernels_off: list[str] = field(default_factory=list)
    """Attention kernels of torch that are not used: `cudnn`, `flash`, `efficient`, `math`."""

    def __post_init__(self) -> None:
        problems = []
        if isinstance(self.strategy, str) and self.strategy != "auto":
            problems.append(
                f"strategy is {self.strategy!r}; several processes are trainer=ddp, or trainer=fsdp for a model that "
                "is sharded among them"
            )
        if isinstance(self.devices, int) and self.devices < 1 and self.devices != -1:
            problems.append(f"devices must be at least 1, or -1 for all, got {self.devices}")
        if self.devices == [] or (
            isinstance(self.devices, str) and self.devices != "auto" and not _is_list(self.devices)
        ):
            problems.append(f"devices is {self.devices!r}; give a number, auto, or the numbers of GPUs: [0,1]")
        for name in ("num_nodes", "max_steps", "accumulate_grad_batches"):
            if getattr(self, name) < 1:
                problems.append(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.overfit_batches < 0:
            problems.append(f"overfit_batches must be 0 or more, got {self.overfit_batches}")
        for check in (
            lambda: check_kernels_off(self.attention_kernels_off, "trainer.attention_kernels_off"),
            self._check_quantization,
        ):
            try:
                check()
            except ConfigError as error:
                problems.append(str(error))
        refuse(problems)

    def _check_quantization(self) -> None:
        if self.vision_quantization != "none":
            from blip2_train.models.tower_quantization import check_tower_quantization  # loads timm

            check_tower_quantization(self.vision_quantization, "trainer.vision_quantization")

    def check_machine(self) -> None:
        """Refuse devices and an extra that this machine lacks, before anything large is loaded.

        Raises:
            ConfigError: naming the setting.
        """
        if self.vision_quantization != "none":
            from blip2_train.models.tower_quantization import library

            library(self.vision_quantization, "trainer.vision_quantization")
        import torch

        cuda, mps = torch.cuda.device_count(), int(torch.backends.mps.is_available())
        available = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(self.accelerator)
        if available is None:
            return
        if not available:
            built = (
                "" if torch.version.cuda or self.accelerator == "mps" else f": torch {torch.__version__} has no CUDA"
            )
            raise ConfigError(
                f"trainer.accelerator={self.accelerator}, but torch finds no such device on this machine{built}; pass "
                "trainer=cpu (several processes: trainer=ddp_cpu), or install the driver and a torch with CUDA"
            )
        requested = self.devices if isinstance(self.devices, int) else 1
        if requested > available:
            raise ConfigError(
                f"trainer.devices={requested}, but this machine has {available} {self.accelerator} "
                f"device{'s' * (available > 1)}: pass trainer.devices={available}"
            )

    def _processes(self) -> int | None:
        """On all machines together; None = as many as there are devices."""
        if isinstance(self.devices, list):
            return len(self.devices) * self.num_nodes
        return self.devices * self.num_nodes if isinstance(self.devices, int) and self.devices > 0 else None

    def build(
        self,
        folder: Path,
        callbacks: Sequence[Callback],
        loggers: Sequence[Any],
        plugins: Sequence[Any] = (),
        validate_after: int | None = None,
    ) -> lightning.Trainer:
        """Lightning's trainer with these options, and with what a run of this project sets itself.

        Args:
            folder: Where Lightning writes what it writes (a profile).
            callbacks: Of the run.
            loggers: Of the run.
            plugins: Of the run.
            validate_after: Micro-batches between validations; None = no validation.

        Raises:
            ConfigError: if the machine lacks the devices, or processes were started otherwise than configured.
        """
        import lightning
        from lightning.pytorch.callbacks import Checkpoint
        from lightning.pytorch.strategies import DDPStrategy
        from lightning.pytorch.utilities.exceptions import MisconfigurationException

        from blip2_train.training.launch import check_launch, environment_of_run

        self.check_machine()
        turn_kernels_off(self.attention_kernels_off)
        environment = environment_of_run(self._processes())
        try:
            trainer = lightning.Trainer(
                accelerator=self.accelerator,
                devices=self.devices,
                num_nodes=self.num_nodes,
                strategy=self.strategy,
                precision=self.precision,
                max_steps=self.max_steps,
                accumulate_grad_batches=self.accumulate_grad_batches,
                deterministic=self.deterministic,
                benchmark=self.benchmark,
                detect_anomaly=self.detect_anomaly,
                overfit_batches=self.overfit_batches,
                profiler=self.profiler,
                callbacks=list(callbacks),
                logger=list(loggers),
                plugins=[*plugins, *([] if environment is None else [environment])],
                default_root_dir=folder,
                val_check_interval=validate_after or 1,
                limit_val_batches=1.0 if validate_after else 0,
                check_val_every_n_epoch=None,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,  # the order of samples is ours
                enable_model_summary=False,
                enable_checkpointing=any(isinstance(one, Checkpoint) for one in callbacks),
            )
        except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"the trainer cannot be built: {' '.join(str(error).split())}") from error
        if isinstance(self.strategy, str) and isinstance(trainer.strategy, DDPStrategy):
            raise ConfigError(
                f"trainer.devices={self.devices} and trainer.num_nodes={self.num_nodes} are several processes: pass "
                "trainer=ddp (on a CPU trainer=ddp_cpu), or trainer=fsdp for a model that is sharded among them"
            )
        check_launch(trainer)
        return trainer


def _is_list(text: str) -> bool:
    """Whether a text is numbers between commas."""
    return all(part.strip().isdecimal() for part in text.split(",") if part.strip()) and text.strip(", ") != ""
