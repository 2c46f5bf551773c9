"""One training run of any stage, from a checked configuration to results, curves and an export."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from blip2_train.checkpoints.architecture import describe_model
from blip2_train.checkpoints.export import Manifest, write_export
from blip2_train.checkpoints.files import checkpoint_weights
from blip2_train.checkpoints.initial_weights import load_initial_weights, parent_fingerprint
from blip2_train.checkpoints.training_checkpoints import CHECKPOINTS, EVERY, describe_checkpoint, read_training_state
from blip2_train.cli import overview
from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.config.compose import instantiate
from blip2_train.config.run_data import make_data
from blip2_train.config.run_folder import held_for, remove_results
from blip2_train.config.starting_weights import find_sources
from blip2_train.data.sources.holdout import validation_problem
from blip2_train.distributed import gather_objects
from blip2_train.errors import ConfigError, RunStopped, TrainingError
from blip2_train.evaluation.run_metrics import RESULTS, read_results
from blip2_train.models.freezing import describe_parameters
from blip2_train.system.atomic_folder import clear_leftovers
from blip2_train.system.atomic_write import write_atomically
from blip2_train.training.best_checkpoint import BestCheckpoint
from blip2_train.training.caption_log import GRID, CaptionLog
from blip2_train.training.checkpoint_files import CheckpointFiles
from blip2_train.training.data_module import ImageTextDataModule
from blip2_train.training.disk_space import FIX, Space, checkpoint_bytes, measure_space, weight_bytes
from blip2_train.training.earlier_runs import EXPORT
from blip2_train.training.generation import GenerationModule
from blip2_train.training.lifecycle import BeforeTraining, Trainer, check_trainer, quiet_libraries, seed_everything
from blip2_train.training.module import TrainingModule
from blip2_train.training.out_of_memory import out_of_memory_in_one_line
from blip2_train.training.progress import LossProgress
from blip2_train.training.run_log import RunCSVLogger, draw_curves, write_results
from blip2_train.training.stop_signals import finishing, interrupted_in_training
from blip2_train.training.trainer_options import TrainerOptions
from blip2_train.training.wandb_login import require_login


@dataclass
class Run:
    """Everything a run consists of."""

    config: DictConfig
    folder: Path
    module: TrainingModule
    data: ImageTextDataModule
    progress: LossProgress
    trainer: Trainer
    best: BestCheckpoint | None
    """Keeps the best weights; None = the last ones count."""

    @property
    def exported(self) -> dict[str, float]:
        """Scores, with their `step`, of the weights that are exported: the last, unless a checkpoint's are better."""
        last = self.module.validations[-1] if self.module.validations else {"step": float(self.trainer.global_step)}
        return last if self.best is None or self.best.beaten_by(last) else self.best.scores


def train(config: DictConfig, checkpoint: Path | None = None) -> dict[str, float]:
    """Train as the configuration says.

    Args:
        config: From `compose`.
        checkpoint: Training state to go on from, or None for a new run.

    Returns:
        The numbers of `results.json`.

    Raises:
        RunStopped: after SIGTERM, SIGUSR1 or Ctrl-C, with the run saved.
        ConfigError: if another run writes to the run folder just now, or has left results there and neither
            `checkpoint` nor `overwrite` says what is to become of them.
    """
    quiet_libraries()
    with held_for(config, goes_on=checkpoint is not None):
        if checkpoint is not None and (finished := _finished(config, checkpoint)) is not None:
            return finished
        return _train(config, checkpoint)


def _train(config: DictConfig, checkpoint: Path | None) -> dict[str, float]:
    started = time.perf_counter()
    run = build(config, show=True)
    run.trainer.callbacks.append(BeforeTraining(lambda: _begin(run, checkpoint)))  # type: ignore[attr-defined]
    batch = (config.global_batch_size, config.accumulate, run.trainer.world_size)
    try:
        resume = None if checkpoint is None else str(checkpoint)
        with interrupted_in_training(), out_of_memory_in_one_line(*batch):
            run.trainer.fit(run.module, datamodule=run.data, ckpt_path=resume, weights_only=True)
    except RunStopped as stop:
        overview.say(f"{stop} and saved in {run.folder}; the same command goes on with resume_from={run.folder}")
        raise
    with_checkpoint = "checkpoint" in config.callbacks
    kept_when_stopped(
        f"all {config.steps} steps are saved in {run.folder}; resume_from={run.folder} validates and exports them"
        if with_checkpoint
        else "nothing was saved, as callbacks.checkpoint is off"
    )
    validations = run.module.validations
    if config.validate_every is not None and (not validations or validations[-1]["step"] != run.trainer.global_step):
        with interrupted_in_training(), out_of_memory_in_one_line(*batch):
            run.trainer.validate(run.module, datamodule=run.data, verbose=False)
        if not validations:
            raise TrainingError("validation was asked for (validate_every) and never happened; check data.validation")
    rejected: Counter[str] = sum(gather_objects(run.data.rejections.counts), Counter())
    results = _results(run, rejected, time.perf_counter() - started)
    weights = run.module.trained_weights()  # by all processes: each may hold a share only
    if run.trainer.is_global_zero:
        with finishing():
            _finish(run, weights, rejected, results)
    return results


def build(config: DictConfig, show: bool = False) -> Run:
    """Build model, data, objective and trainer of a configuration, load initial weights, and say what will happen."""
    folder = Path(config.paths.run_dir)
    options = trainer_options(config.trainer)
    if any(part._target_.endswith(".WandbLogger") and not part.get("offline") for part in config.logger.values()):
        require_login()
    seed_everything(config.seed)
    init_from, text_from = find_sources(config)
    data = make_data(config)
    model = instantiate(config.model)
    module: TrainingModule = instantiate(
        config.module,
        model=model,
        objective=instantiate(config.objective),
        optimizer=instantiate(config.optim),
        collator=data.collator,
    )
    adapters = None if config.peft is None else instantiate(config.peft)
    reports = load_initial_weights(model, init_from, text_from, adapters)
    module.run_config = OmegaConf.to_yaml(config)
    module.parent = parent_fingerprint(init_from, model.qformer_config.weights)
    module.about = {
        "stage": module.stage,
        "architecture": describe_model(model),
        "processor": {**data.processing(), "max_text_length": config.max_text_length, "prompt": module.prompt},
    }
    contrasted = config.global_batch_size // config.accumulate
    progress = LossProgress(config.global_batch_size, module.chance_levels(contrasted))
    best = None if config.monitor is None else BestCheckpoint(folder / CHECKPOINTS, config.monitor)
    callbacks: list[Any] = [] if best is None else [best]  # before the newest, after which the run may end
    callbacks += [*(instantiate(part) for part in config.callbacks.values()), progress]
    interval = None if config.validate_every is None else config.validate_every * config.accumulate
    loggers = [instantiate(part) for part in config.logger.values()]
    trainer = options.build(folder, callbacks, loggers, [CheckpointFiles()], interval)
    check_trainer(trainer, clips=config.optim.clip_norm is not None)
    run = Run(config, folder, module, data, progress, trainer, best)
    if show:
        overview.announce(describe_parameters(model), module.groups(), reports, folder)
    return run


def trainer_options(node: DictConfig) -> TrainerOptions:
    """The options of a run's trainer, with the devices they name looked for on this machine.

    Raises:
        ConfigError: if a part of the configuration builds another trainer, or a device is not here.
    """
    options = instantiate(node)
    if not isinstance(options, TrainerOptions):
        raise ConfigError(
            f"trainer._target_ is {node._target_!r}, but a run takes the options of trainer=default alone: begin the "
            "file with `defaults: [default]` and leave _target_ out"
        )
    options.check_machine()
    return options


def _begin(run: Run, checkpoint: Path | None) -> None:
    """Open the run folder; by now a checkpoint that does not fit was refused, with the folder as it was."""
    problem = validation_problem(run.data.validation_count, run.trainer.world_size)
    if problem is not None and run.config.validate_every is not None:
        raise ConfigError(problem)
    _check_disk(run)
    if run.trainer.is_global_zero:
        run.folder.mkdir(parents=True, exist_ok=True)
        if checkpoint is None:
            remove_results(run.folder)
        clear_leftovers(run.folder / EXPORT)
        saved = map(describe_checkpoint, (run.folder / CHECKPOINTS).glob(EVERY))
        run.module.saves = max((one.saves for one in saved), default=run.module.saves)
        if isinstance(run.module, GenerationModule):
            run.module.captions = CaptionLog(run.folder, run.data.mean, run.data.std)
        write_atomically(run.folder / "config.yaml", run.module.run_config)
        for logger in run.trainer.loggers:
            logger.log_hyperparams(OmegaConf.to_container(run.config))  # type: ignore[arg-type]
            if isinstance(logger, RunCSVLogger):
                logger.keep_until(run.data.first_step)
    plan = run.data.plan()
    overview.announce_plan(plan)
    run.module.consumed = plan.epochs_at
    if run.config.accumulate > 1 and run.module.stage == "stage1":
        contrasted = run.config.global_batch_size // run.config.accumulate
        overview.say(f"note: accumulation adds no negatives; ITC tells {contrasted} pairs apart, not the whole batch")
    if checkpoint is not None:
        overview.say(f"going on from step {run.data.first_step} of {checkpoint}")


def planned_space(config: DictConfig, model: nn.Module) -> Space:
    """What the checkpoints and the export of a run take, beside what is free where it will write them."""
    writer = config.callbacks.get("checkpoint")
    keep = 0 if writer is None else int(writer.get("keep", 1))
    return measure_space(
        Path(config.paths.run_dir).expanduser(),
        checkpoint_bytes(model),
        weight_bytes(model),
        newest=min(keep, -(-int(config.steps) // int(config.checkpoint_every))),  # the last step's is always written
        best=int(config.monitor is not None),
    )


def _check_disk(run: Run) -> None:
    """Refuse a run whose checkpoints will not fit; processes of other machines take the first one's word."""
    problem = ""
    if run.trainer.is_global_zero:
        space = planned_space(run.config, run.module.model)
        if space.tight:
            overview.say(f"warning: disk space is tight: {space.text}")
        problem = "" if space.fits else f"disk: {space.text}; {FIX}"
    if problem := gather_objects(problem)[0]:
        raise ConfigError(problem)


def _finished(config: DictConfig, checkpoint: Path) -> dict[str, float] | None:
    """Results of a run that has nothing left to do; None if it has."""
    folder = Path(config.paths.run_dir)
    if read_training_state(checkpoint)["global_step"] < config.steps or not (results := read_results(folder)):
        return None
    overview.say(
        f"nothing to resume: the run is finished, see {folder / RESULTS}; steps=<more> with resume_from={folder} "
        "extends it"
    )
    return results


def _results(run: Run, rejected: Counter[str], seconds: float) -> dict[str, float]:
    results = {"steps": float(run.trainer.global_step), "seconds": seconds}
    results["samples_per_second"] = run.progress.samples_per_second
    results["trainable_parameters"] = float(sum(p.numel() for p in run.module.parameters() if p.requires_grad))
    results |= {f"train/{name}": value for name, value in run.module.latest.items()}
    results["exported_step"] = run.exported["step"]
    results |= {f"val/{name}": value for name, value in run.exported.items() if name != "step"}
    results |= {f"chance/{name}": level for name, level in run.progress.chance.items()}
    if "val/pairs" in results:
        results["chance/val_loss_itc"] = math.log(results["val/pairs"])
    results["rejected_samples"] = float(sum(rejected.values()))
    results |= run.data.plan().epochs_at(run.trainer.global_step)
    return results


def _finish(run: Run, weights: dict[str, Tensor], rejected: Counter[str], results: dict[str, float]) -> None:
    config = run.config
    metrics = {name: value for name, value in results.items() if name.startswith("val/")}
    best = run.best.path if run.best and results["exported_step"] != run.trainer.global_step else None
    if best is not None:
        weights = checkpoint_weights(read_training_state(best))
        overview.say(f"exported are the weights with the best {config.monitor}, of {best.name}")
    manifest = Manifest(
        **run.module.about,
        recipe=config.experiment,
        step=int(results["exported_step"]),
        checkpoint=best.name if best else "",
        metrics=metrics,
        parent=run.module.parent,
        frozen_fingerprint=run.module.frozen_fingerprint(),
    )
    export = write_export(run.folder / EXPORT, weights, run.module.run_config, run.data.collator.tokenizer, manifest)
    paths = {
        "results": write_results(run.folder, results),
        "curves": draw_curves(run.folder, run.progress.chance),
        "captions": run.folder / GRID if (run.folder / GRID).is_file() else None,
        "export": export,
        "run folder": run.folder,
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common())
    overview.report(results, run.progress.chance, reasons, paths)
    for line in run.data.plan().account(run.trainer.global_step):
        overview.say(line)
