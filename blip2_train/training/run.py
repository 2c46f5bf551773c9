"""One training run of any stage: built objects go in; scores, checkpoints, curves and an export come out."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from blip2_train.checkpoints.architecture import describe_model
from blip2_train.checkpoints.export import Manifest, write_export
from blip2_train.checkpoints.files import checkpoint_weights
from blip2_train.checkpoints.training_checkpoints import (
    ALL_NAMES,
    CHECKPOINTS,
    describe_checkpoint,
    read_training_state,
)
from blip2_train.data.sources.holdout import validation_problem
from blip2_train.distributed import gather_objects, rank
from blip2_train.errors import ConfigError, RunStopped, TrainingError
from blip2_train.evaluation.figures.curves import draw_curves
from blip2_train.evaluation.run_metrics import read_results
from blip2_train.system.atomic_folder import clear_leftovers
from blip2_train.system.atomic_write import write_atomically
from blip2_train.training.best_checkpoint import BestCheckpoint
from blip2_train.training.caption_log import GRID
from blip2_train.training.change_warnings import ChangeWarnings
from blip2_train.training.checkpoint_files import CheckpointFiles
from blip2_train.training.compiling import CompilePasses
from blip2_train.training.data_module import ImageTextDataModule
from blip2_train.training.disk_space import FIX, planned_space
from blip2_train.training.earlier_runs import EXPORT
from blip2_train.training.lifecycle import BeforeTraining, check_trainer
from blip2_train.training.module import TrainingModule
from blip2_train.training.non_finite import SkipNonFinite
from blip2_train.training.out_of_memory import out_of_memory_in_one_line
from blip2_train.training.progress import LossProgress
from blip2_train.training.retrieval_log import RETRIEVAL
from blip2_train.training.run_checkpoints import RunCheckpoints
from blip2_train.training.run_folder import hold_run_folder, remove_results
from blip2_train.training.run_log import RunCSVLogger, write_results
from blip2_train.training.stop_signals import finishing, interrupted_in_training
from blip2_train.training.stored_features import check_tower_computes_as_stored, read_stored_features
from blip2_train.training.tower_in_8_bits import TowerIn8Bits
from blip2_train.training.trainer_options import TrainerOptions

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run writes, and how often; sizes and steps are those of its data module and its optimiser."""

    run_dir: Path
    """Folder of the run: checkpoints, `metrics.csv`, `results.json`, curves and export."""
    validate_every: int | None = None
    """Optimiser steps between validations; None = no validation."""
    checkpoint_every: int = 1000
    """Optimiser steps between checkpoints, for the default callbacks."""
    monitor: str | None = None
    """Score of validation (`val/recall_mean`) whose best weights are exported; None = the last weights."""
    overwrite: bool = False
    """Whether the results of another run in `run_dir` may be replaced."""
    recipe: str = ""
    """Name of the recipe, for the export's manifest."""
    config_text: str = ""
    """YAML that checkpoints and exports store beside the weights, for readers; empty = a description of the model."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What loggers record as the run's hyperparameters."""


class RunReporter:
    """Receives the notes of a run; this one logs them, in the first process only."""

    def line(self, text: str) -> None:
        """One line for whoever watches the run."""
        if rank() == 0:
            _LOGGER.info(text)

    def summary(self, text: str) -> None:
        """One line of what the details say; this one leaves it out."""

    def detail(self, text: str) -> None:
        """One line of the details, for whoever looks closely."""
        RunReporter.line(self, text)

    def progress(self, text: str) -> None:
        """One line for a log: a step, a validation or a checkpoint, which whoever watches sees otherwise."""

    def begun(self, folder: Path) -> None:
        """The run folder is the run's own from now on; called in the first process only."""

    def kept(self, text: str) -> None:
        """What an interruption would leave from now on."""


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What a finished run leaves."""

    results: dict[str, float]
    """The numbers of `results.json`."""
    chance: dict[str, float]
    """Loss of a model that has learned nothing, by loss."""
    rejected: Counter[str]
    """Samples that could not be used, by reason."""
    paths: dict[str, Path | None]
    """`results`, `curves`, `captions`, `retrieval`, `export` and `run folder`; empty in all processes but the first."""
    consumed: list[str]
    """What of the data was trained on, in lines of text."""


@dataclass
class Run:
    """A run that is ready to start."""

    module: TrainingModule
    data: ImageTextDataModule
    options: RunOptions
    trainer: lightning.Trainer
    progress: LossProgress
    best: BestCheckpoint | None
    """Keeps the best weights; None = the last weights are exported."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.options.run_dir

    @property
    def checkpoints(self) -> RunCheckpoints | None:
        """The callback that writes checkpoints; None = the run writes none."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return next((one for one in callbacks if isinstance(one, RunCheckpoints)), None)

    @property
    def exported(self) -> dict[str, float]:
        """Scores, with their `step`, of the weights that are exported: the last, unless a checkpoint's are better."""
        last = self.module.validations[-1] if self.module.validations else {"step": float(self.trainer.global_step)}
        return last if self.best is None or self.best.beaten_by(last) else self.best.scores


def train(
    module: TrainingModule,
    data: ImageTextDataModule,
    options: RunOptions,
    *,
    trainer: TrainerOptions | None = None,
    callbacks: Sequence[Callback] | None = None,
    loggers: Sequence[Any] | None = None,
    checkpoint: Path | None = None,
    reporter: RunReporter | None = None,
) -> RunOutcome:
    """Train, validate and export.

    Args:
        module: The training module of a model, with the weights that the model starts from (`load_initial_weights`).
        data: What it trains on and validates with.
        options: Where the run writes, and how often.
        trainer: Devices and precision; None = one process on whatever device there is.
        callbacks: None = checkpoints, skipping of steps that are not finite, and warnings of sudden changes.
        loggers: None = `metrics.csv` in the run folder.
        checkpoint: Training state to resume from; None = a new run.
        reporter: Receives the notes of the run; None = they are logged.

    Raises:
        RunStopped: after SIGTERM, SIGUSR1 or Ctrl-C, with the run saved.
        ConfigError: if the objects do not fit together, or the run folder holds another run.
    """
    with hold_run_folder(options.run_dir, resumes=checkpoint is not None, overwrite=options.overwrite):
        run = build_run(module, data, options, trainer=trainer, callbacks=callbacks, loggers=loggers)
        return fit(run, checkpoint, reporter or RunReporter())


def default_callbacks(options: RunOptions) -> list[Callback]:
    """Checkpoints, skipping of steps that are not finite, and warnings of sudden changes."""
    folder = options.run_dir
    checkpoints = RunCheckpoints(str(folder / CHECKPOINTS), options.checkpoint_every)
    return [checkpoints, SkipNonFinite(str(folder)), ChangeWarnings()]


def build_run(
    module: TrainingModule,
    data: ImageTextDataModule,
    options: RunOptions,
    *,
    trainer: TrainerOptions | None = None,
    callbacks: Sequence[Callback] | None = None,
    loggers: Sequence[Any] | None = None,
) -> Run:
    """A run that is ready for `fit` (arguments as `train`); it writes nothing yet.

    Raises:
        ConfigError: if the objects do not fit together.
    """
    if data.steps != module.optimizer_config.steps:
        raise ConfigError(
            f"the data module has {data.steps} steps and the optimiser {module.optimizer_config.steps}: give both the "
            "same number"
        )
    trainer = trainer or TrainerOptions(max_steps=data.steps, accumulate_grad_batches=data.accumulate)
    module.about = {
        "stage": module.stage,
        "architecture": describe_model(module.model),
        "processor": {
            **data.processing(),
            "max_text_length": data.collator.max_text_length,
            "prompt": module.prompt,
        },
    }
    data.whole_steps = module.contrasts_whole_steps
    if data.features is not None:
        check_tower_computes_as_stored(trainer.vision_quantization, "data.features", "trainer.vision_quantization")
        module.frozen_fingerprint()  # which exports and checkpoints state, before the tower gives up its weights
        read_stored_features(module.model, data.features)
    module.run_config = options.config_text or json.dumps(module.about, indent=1)
    contrasted = module.contrasted(data.global_batch_size, data.accumulate)
    progress = LossProgress(data.global_batch_size, module.chance_levels(contrasted))
    best = None if options.monitor is None else BestCheckpoint(options.run_dir / CHECKPOINTS, options.monitor)
    chosen = [*(default_callbacks(options) if callbacks is None else callbacks)]
    if trainer.vision_quantization != "none":
        chosen.append(TowerIn8Bits(trainer.vision_quantization))
    if trainer.compile:
        chosen.append(CompilePasses())
    built = trainer.build(
        options.run_dir,
        [*([] if best is None else [best]), *chosen, progress],  # the best before the newest, after which it may end
        [RunCSVLogger(str(options.run_dir))] if loggers is None else loggers,
        [CheckpointFiles()],
        None if options.validate_every is None else options.validate_every * data.accumulate,
    )
    check_trainer(built, clips=module.optimizer_config.clip_norm is not None)
    return Run(module, data, options, built, progress, best)


def fit(run: Run, checkpoint: Path | None, reporter: RunReporter) -> RunOutcome:
    """Run all steps, then validate, score and export; the caller holds the run folder.

    Args:
        run: From `build_run`.
        checkpoint: Training state to resume from; None = a new run.
        reporter: Receives the notes of the run.

    Raises:
        RunStopped: after SIGTERM, SIGUSR1 or Ctrl-C, with the run saved.
        ConfigError: if what the run will write does not fit on the disk, or the validation data are too few.
        TrainingError: if a validation that `validate_every` names never ran.
    """
    started, module, data, trainer = time.perf_counter(), run.module, run.data, run.trainer
    trainer.callbacks.append(BeforeTraining(lambda: _begin(run, checkpoint, reporter)))  # type: ignore[attr-defined]
    batch = (data.global_batch_size, data.accumulate, trainer.world_size)
    run.progress.note = reporter.progress
    try:
        resume = None if checkpoint is None else str(checkpoint)
        with interrupted_in_training(), out_of_memory_in_one_line(*batch):
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except RunStopped as stop:
        reporter.line(f"{stop} and saved in {run.folder}; the same command goes on with resume_from={run.folder}")
        raise
    reporter.kept(
        f"all {data.steps} steps are saved in {run.folder}; resume_from={run.folder} validates and exports them"
        if run.checkpoints
        else "nothing was saved, as callbacks.checkpoint is off"
    )
    validations = module.validations
    if run.options.validate_every is not None and (not validations or validations[-1]["step"] != trainer.global_step):
        with interrupted_in_training(), out_of_memory_in_one_line(*batch):
            trainer.validate(module, datamodule=data, verbose=False)
        if not validations:
            raise TrainingError("validate_every is set and no validation ran; check data.validation")
    rejected: Counter[str] = sum(gather_objects(data.rejections.counts), Counter())
    results = _results(run, rejected, time.perf_counter() - started)
    weights = module.trained_weights()  # by all processes: each may hold a share only
    paths: dict[str, Path | None] = {}
    if trainer.is_global_zero:
        with finishing():
            paths = _write(run, weights, results, reporter)
    consumed = data.plan().account(trainer.global_step)
    return RunOutcome(results=results, chance=run.progress.chance, rejected=rejected, paths=paths, consumed=consumed)


def finished_results(run_dir: Path, checkpoint: Path, steps: int) -> dict[str, float] | None:
    """Results of a run that has no steps left to do; None if it has some."""
    if read_training_state(checkpoint)["global_step"] < steps:
        return None
    return read_results(run_dir) or None


def _begin(run: Run, checkpoint: Path | None, reporter: RunReporter) -> None:
    """Open the run folder; by now a checkpoint that does not fit was refused, with the folder as it was."""
    options, module, data = run.options, run.module, run.data
    problem = validation_problem(data.validation_count, run.trainer.world_size)
    if problem is not None and options.validate_every is not None:
        raise ConfigError(problem)
    _check_disk(run, reporter)
    if run.trainer.is_global_zero:
        run.folder.mkdir(parents=True, exist_ok=True)
        if checkpoint is None:
            remove_results(run.folder)
        reporter.begun(run.folder)
        clear_leftovers(run.folder / EXPORT)
        saved = map(describe_checkpoint, (run.folder / CHECKPOINTS).glob(ALL_NAMES))
        module.saves = max((one.saves for one in saved), default=module.saves)
        module.open_folder(run.folder, data.mean, data.std)
        write_atomically(run.folder / "config.yaml", module.run_config)
        for logger in run.trainer.loggers:
            logger.log_hyperparams(dict(options.settings))
            if isinstance(logger, RunCSVLogger):
                logger.keep_until(data.first_step)
    plan = data.plan()
    for line in plan.summary():
        reporter.summary(line)
    for line in plan.lines():
        reporter.detail(line)
    module.consumed = plan.epochs_at
    contrasted = module.contrasted(data.global_batch_size, data.accumulate)
    if module.contrasts_within_batch and contrasted < data.global_batch_size:
        reporter.line(
            f"note: accumulation adds no negatives; ITC contrasts {contrasted} pairs, not the whole batch "
            f"(objective.contrast=batch: all {data.global_batch_size})"
        )
    if checkpoint is not None:
        reporter.line(f"going on from step {data.first_step} of {checkpoint}")


def _check_disk(run: Run, reporter: RunReporter) -> None:
    """Refuse a run whose checkpoints will not fit; processes of other machines follow the first one's answer."""
    problem = ""
    if run.trainer.is_global_zero:
        writer = run.checkpoints
        space = planned_space(
            run.folder,
            run.module.model,
            steps=run.data.steps,
            checkpoint_every=writer.every if writer else run.data.steps,
            keep=writer.keep if writer else 0,
            keeps_best=run.best is not None,
        )
        if space.tight:
            reporter.line(f"warning: disk space is tight: {space.text}")
        problem = "" if space.fits else f"disk: {space.text}; {FIX}"
    if problem := gather_objects(problem)[0]:
        raise ConfigError(problem)


def _results(run: Run, rejected: Counter[str], seconds: float) -> dict[str, float]:
    results = {"steps": float(run.trainer.global_step), "seconds": seconds}
    if run.data.first_step:
        results["seconds_since_step"] = float(run.data.first_step)
    results["samples_per_second"] = run.progress.samples_per_second
    results["trainable_parameters"] = float(sum(p.numel() for p in run.module.parameters() if p.requires_grad))
    results |= {f"train/{name}": value for name, value in run.module.latest.items()}
    results["exported_step"] = run.exported["step"]
    results |= {f"val/{name}": value for name, value in run.exported.items() if name != "step"}
    results |= {f"chance/{name}": level for name, level in run.progress.chance.items()}
    pairs = int(results.get("val/pairs", 0))
    if pairs and (level := run.module.chance_levels(pairs).get("loss_itc")) is not None:
        results["chance/val_loss_itc"] = level
    results["rejected_samples"] = float(sum(rejected.values()))
    results |= run.data.plan().epochs_at(run.trainer.global_step)
    return results


def _write(
    run: Run, weights: dict[str, Tensor], results: dict[str, float], reporter: RunReporter
) -> dict[str, Path | None]:
    """Write export, results and curves."""
    module, options = run.module, run.options
    best = run.best.path if run.best and results["exported_step"] != run.trainer.global_step else None
    if best is not None:
        weights = checkpoint_weights(read_training_state(best))
        reporter.line(f"exported are the weights with the best {options.monitor}, of {best.name}")
    manifest = Manifest(
        **module.about,
        recipe=options.recipe,
        step=int(results["exported_step"]),
        checkpoint=best.name if best else "",
        metrics={name: value for name, value in results.items() if name.startswith("val/")},
        parent=module.parent,
        frozen_fingerprint=module.frozen_fingerprint(),
    )
    export = write_export(run.folder / EXPORT, weights, module.run_config, run.data.collator.tokenizer, manifest)
    return {
        "results": write_results(run.folder, results),
        "curves": draw_curves(run.folder, run.progress.chance, results.get("chance/val_loss_itc")),
        **{path.stem: path if path.is_file() else None for path in (run.folder / GRID, run.folder / RETRIEVAL)},
        "export": export,
        "run folder": run.folder,
    }
