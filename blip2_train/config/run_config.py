"""The known keys at the top of a configuration, of a training run or an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from blip2_train.errors import ConfigError, refuse

_COUNTS = (
    "steps",
    "global_batch_size",
    "accumulate",
    "image_size",
    "max_text_length",
    "validate_every",
    "checkpoint_every",
    "log_every",
)
_LEAST = dict.fromkeys(_COUNTS, 1) | {"seed": 0}
"""Smallest values of numbers at the top."""


class Part:
    """Stands for a node that builds an object: a mapping with `_target_` and that object's arguments."""


@dataclass(frozen=True, kw_only=True)
class PathsConfig:
    """Folders."""

    data_dir: str
    """Where the data sets are that recipes name."""
    real_parts: str
    """Where the weights are that `scripts/real_parts.py` fetches."""
    output_dir: str
    """Where run folders are made."""
    run_dir: str
    """Folder of this run."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    experiment: str
    """Name of the recipe."""
    seed: int
    """Of data order, initial weights, dropout and negatives."""
    steps: int
    """Optimiser steps of the whole run."""
    epochs: float | None
    """Passes over the data that `steps` follow from, see `config.epoch_steps`; null = `steps` says it."""
    global_batch_size: int
    """Samples per optimiser step, over all processes and accumulated micro-batches."""
    accumulate: int
    """Micro-batches per optimiser step."""
    image_size: int
    """Pixels per side of the square input."""
    max_text_length: int
    """Tokens, with the first and the last."""
    tokenizer: str
    """Folder or hub id of the Q-Former's tokenizer."""
    validate_every: int | None
    """Optimiser steps between validations; null = none."""
    monitor: str | None
    """Score of validation whose best checkpoint is kept and exported: `val/cider`; null = the last weights."""
    checkpoint_every: int
    """Optimiser steps between checkpoints."""
    log_every: int
    """Optimiser steps between logged values."""
    init_from: str | None
    """Weights that the run starts from: export or run folder, `last:<recipe>` for the newest of a recipe, Hugging Face
    folder or id, LAVIS or Paddle file; null = from scratch."""
    init_text_from: str | None
    """Stage-1 weights, of any of these, whose text half a Q-Former takes that reads questions and starts from stage 2;
    null = none."""
    resume_from: str | None
    """`last`, a run folder or a checkpoint to go on from; null = a new run."""
    verbose: bool
    """Whether the terminal shows every detail before the first step, which the run's log has in any case."""
    overwrite: bool
    """Whether a new run may replace the results of another one in its folder."""
    model: Part
    objective: Part
    module: Part
    collator: Part
    data: Part
    optim: Part
    peft: Part | None
    trainer: Part
    callbacks: dict[str, Part]
    logger: dict[str, Part]
    paths: PathsConfig

    def __post_init__(self) -> None:
        """Check ranges; values of a wrong type are left out here, as they are reported elsewhere."""
        problems, good = [], dict[str, int]()
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < least:
                expected = "at least 1" if least else "0 or more"
                problems.append(f"{name} must be {expected}, got {value}")
            elif isinstance(value, int):
                good[name] = value
        if isinstance(self.epochs, int | float) and not 0 < self.epochs < 2**31:
            problems.append(
                f"epochs must be a positive number, got {self.epochs:g}; null = steps says how long a run is"
            )
        if {"global_batch_size", "accumulate"} <= good.keys() and self.global_batch_size % self.accumulate:
            problems.append(
                f"global_batch_size {self.global_batch_size} is not divisible by accumulate {self.accumulate}; the "
                f"nearest that is: {self.global_batch_size // self.accumulate * self.accumulate or self.accumulate}"
            )
        if self.monitor is not None and self.validate_every is None:
            problems.append(f"monitor {self.monitor} needs validation: give validate_every, or pass monitor=null")
        if {"validate_every", "steps"} <= good.keys() and good["validate_every"] > good["steps"]:
            problems.append(
                f"validate_every {self.validate_every} is more than steps {self.steps}: the run would end without a "
                "validation; lower it, or validate_every=null for none"
            )
        refuse(problems)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """One evaluation: some tasks, and the models that they score."""

    checkpoint: str | None
    """What is evaluated: export or run folder, Hugging Face folder or id, LAVIS or Paddle file, or `last:<recipe>`."""
    checkpoints: dict[str, str | None]
    """By kind of task (`captioning`, `vqa`, `retrieval`), where it is another; null = `checkpoint`."""
    device: str
    """`auto`, `cpu`, `cuda`, …"""
    attention_kernels_off: list[str]
    """Attention kernels of torch that are not used: `cudnn`, `flash`, `efficient`, `math`."""
    dtype: str | None
    """Precision of the language model and a frozen tower; null = as configured."""
    quantization: str
    """Of the language model: `none`, `int8` or `int4`."""
    vision_quantization: str
    """Of a frozen tower: `none`, `int8` or `float8`."""
    language_model: str | None
    """Folder or hub id, for models that do not hold it."""
    vision_weights: str | None
    """File, for models that do not hold them."""
    tokenizer: str | None
    """Folder or hub id of the Q-Former's, for models that do not hold it."""
    features: str | list[str] | None
    """Folder of stored features of the tower, or several, that are read instead of images; null = none."""
    examples: int
    """Examples of each task on the page."""
    attention: bool
    """Whether the page shows where the queries look in them."""
    tasks: dict[str, Part]
    paths: PathsConfig

    def __post_init__(self) -> None:
        if self.examples < 0:
            raise ConfigError(f"examples must be 0 or more, got {self.examples}")
