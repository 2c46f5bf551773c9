"""One training run of any stage, from a checked configuration to results, curves and an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from blip2_train.checkpoints.initial_weights import load_initial_weights, parent_fingerprint
from blip2_train.cli.run_report import result_lines
from blip2_train.cli.run_summary import details, summary_lines, weightless_line
from blip2_train.cli.train.terminal_reporter import TerminalReporter
from blip2_train.config.compose import instantiate
from blip2_train.config.run_data import make_data
from blip2_train.config.starting_weights import find_starting_weights
from blip2_train.errors import ConfigError
from blip2_train.evaluation.run_metrics import RESULTS
from blip2_train.models.freezing import describe_parameters
from blip2_train.system.line_log import logged_lines
from blip2_train.training.lifecycle import quiet_libraries, seed_everything
from blip2_train.training.module import TrainingModule
from blip2_train.training.run import Run, RunOptions, build_run, finished_results, fit
from blip2_train.training.run_folder import hold_run_folder
from blip2_train.training.stored_features import check_tower_computes_as_stored
from blip2_train.training.trainer_options import TrainerOptions
from blip2_train.training.wandb_login import require_login


def train(config: DictConfig, checkpoint: Path | None = None) -> dict[str, float]:
    """Train with a configuration.

    Args:
        config: From `compose`.
        checkpoint: Training state to resume from, or None for a new run.

    Returns:
        The numbers of `results.json`.

    Raises:
        RunStopped: after SIGTERM, SIGUSR1 or Ctrl-C, with the run saved.
        ConfigError: if another run writes to the run folder now, or has left results there and neither `checkpoint`
            nor `overwrite` decides what becomes of them.
    """
    quiet_libraries()
    folder = Path(config.paths.run_dir).expanduser()
    held = hold_run_folder(folder, resumes=checkpoint is not None, overwrite=config.overwrite)
    with held, logged_lines() as log:
        reporter = TerminalReporter(log, config.verbose)
        if checkpoint is not None and (finished := finished_results(folder, checkpoint, config.steps)):
            reporter.line(
                f"nothing to resume: the run is finished, see {folder / RESULTS}; steps=<more>, or "
                f"epochs=<more>, with resume_from={folder} extends it"
            )
            return finished
        outcome = fit(build(config, reporter), checkpoint, reporter)
        if outcome.paths:
            reasons = ", ".join(f"{count} {reason}" for reason, count in outcome.rejected.most_common())
            for shown in (*result_lines(outcome.results, outcome.chance, reasons, outcome.paths), *outcome.consumed):
                reporter.line(shown)
    return outcome.results


def build(config: DictConfig, reporter: TerminalReporter | None = None) -> Run:
    """Build model, data, objective and trainer of a configuration, and load initial weights.

    Args:
        config: From `compose`.
        reporter: Receives what trains, from which weights, and where the run writes; None = nobody.
    """
    if config.data.get("features") is not None:
        quantization = config.trainer.get("vision_quantization")
        check_tower_computes_as_stored(quantization, "data.features", "trainer.vision_quantization")
    trainer = trainer_options(config.trainer)
    if any(part._target_.endswith(".WandbLogger") and not part.get("offline") for part in config.logger.values()):
        require_login()
    seed_everything(config.seed)
    init_from, text_from = find_starting_weights(config)
    data = make_data(config)
    data.require_files()
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
    module.parent = parent_fingerprint(init_from, model.qformer_config.weights)
    run = build_run(
        module,
        data,
        run_options(config),
        trainer=trainer,
        callbacks=[instantiate(part) for part in config.callbacks.values()],
        loggers=[instantiate(part) for part in config.logger.values()],
    )
    if reporter is not None:
        parts = describe_parameters(model)
        for line in summary_lines(config.experiment, parts, reports, run.folder):
            reporter.summary(line)
        for line in weightless_line(module.objective):
            reporter.line(line)
        for detail in details(parts, module.groups(), reports):
            reporter.detail(detail)
    return run


def run_options(config: DictConfig) -> RunOptions:
    """Where the run of a configuration writes, and how often."""
    settings: Any = OmegaConf.to_container(config)
    return RunOptions(
        run_dir=Path(config.paths.run_dir),
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
        monitor=config.monitor,
        overwrite=config.overwrite,
        recipe=config.experiment,
        config_text=OmegaConf.to_yaml(config),
        settings=settings,
    )


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
