"""An evaluation: the tasks of a configuration, each with its model, on all processes; results, page and scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig

from blip2_train.checkpoints.files import fingerprint
from blip2_train.cli.phase_progress import PhaseProgress
from blip2_train.cli.score_tables import print_chosen_scores, print_scores
from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.config.compose import instantiate
from blip2_train.data.features.processor import feature_processor
from blip2_train.data.features.store import open_features
from blip2_train.data.text_cleaning import clean_question
from blip2_train.distributed import gather_objects, rank
from blip2_train.errors import ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.evaluation.report.attention import with_attention
from blip2_train.evaluation.report.content import Example, TaskLabels, TaskReport, TaskSettings
from blip2_train.evaluation.report.page import write_report
from blip2_train.evaluation.report.results import program_versions, write_results
from blip2_train.evaluation.report.word_views import with_word_views
from blip2_train.evaluation.run_task import run_task
from blip2_train.evaluation.task import EvaluationTask
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.attention_kernels import turn_kernels_off
from blip2_train.models.tower_quantization import plain_weights
from blip2_train.pretrained import load_pretrained
from blip2_train.system.atomic_write import write_checked
from blip2_train.system.folder_lock import lock_folder
from blip2_train.system.screen import echo
from blip2_train.training.earlier_runs import find_source, logged_run
from blip2_train.training.lifecycle import quiet_libraries
from blip2_train.training.stored_features import check_tower_computes_as_stored, tower_fingerprint, tower_settings

RESULTS, PAGE, PREDICTIONS = "results.json", "report.html", "predictions"
SAMPLE_SCORES = ".samples.json"
"""End of the name of the file with the score of every sample, by its id: two models can be compared in pairs."""


def evaluate(config: DictConfig) -> dict[str, dict[str, float | None]]:
    """Evaluate with a configuration, on all processes that were started (torchrun); each sample exactly once.

    Args:
        config: From `compose_evaluation`.

    Returns:
        By task, its scores by name; None where one could not be computed.

    Raises:
        ConfigError: if stored features are to be read by a tower in 8 bits.
    """
    if config.features is not None:
        check_tower_computes_as_stored(config.vision_quantization, "features", "vision_quantization")
    quiet_libraries()
    turn_kernels_off(config.attention_kernels_off)
    device = _join_processes(config.device)
    folder = Path(gather_objects(config.paths.run_dir)[0]).expanduser()  # which may be named by the time of a process
    kept_when_stopped(f"what was predicted so far is kept: paths.run_dir={folder} goes on from there")
    with _held(folder):
        return _evaluate_all(config, folder, device)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other evaluations out of a folder; all processes learn whether the first one could.

    Raises:
        ConfigError: in all processes, if another one writes there just now.
    """
    choices = "wait for that evaluation or end it, or give another paths.run_dir="
    with ExitStack() as stack:
        problem = ""
        if rank() == 0:
            if not folder.exists():
                folder.mkdir(parents=True)
                stack.callback(_remove_empty, folder)
            try:
                stack.enter_context(lock_folder(folder, f"folder {folder}", choices))
            except ConfigError as error:
                problem = str(error)
        if problem := gather_objects(problem)[0]:
            raise ConfigError(problem)
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty, as a rule
        folder.rmdir()


def _evaluate_all(config: DictConfig, folder: Path, device: str) -> dict[str, dict[str, float | None]]:
    tasks: list[EvaluationTask] = [instantiate(node) for node in config.tasks.values()]
    sources = {task.name: _source(config, task) for task in tasks}
    model: Blip2 | None = None
    loaded, reports, shown = "", [], PhaseProgress("batches", hidden=rank() != 0)
    for task in sorted(tasks, key=lambda task: list(sources.values()).index(sources[task.name])):
        if model is None or loaded != sources[task.name]:
            model = None  # before the next is loaded: there may be no room for two
            model, loaded = _load(config, sources[task.name], device), sources[task.name]
        reports.append(_evaluate(model, task, folder, config, shown))
    if rank() == 0:
        runs = [run for source in dict.fromkeys(sources.values()) if (run := logged_run(source)) is not None]
        _say(reports, folder, config.examples, {task.name: task.closing for task in tasks}, runs)
    return {report.name: dict(report.scores) for report in reports}


def _evaluate(model: Blip2, task: EvaluationTask, folder: Path, config: DictConfig, shown: PhaseProgress) -> TaskReport:
    about = {"model": _weights_of(model), "precision": _precision(model)}
    with shown, _from_features(model, config) as (reader, more):
        about |= more
        rows, scored = run_task(reader, task, folder / PREDICTIONS, about, shown)
    if rank() == 0:
        task.write(rows, folder / PREDICTIONS / f"{task.name}.json")
        samples = {"metric": task.example_metric, "scores": dict(scored.per_sample)}
        write_checked(folder / PREDICTIONS / f"{task.name}{SAMPLE_SCORES}", samples, indent=None)
    settings = dict(task.settings())
    report = TaskReport(
        name=task.name,
        title=task.title,
        kind=task.kind,
        scores=scored.scores,
        reasons=scored.reasons,
        chance=getattr(task, "chance", dict)(),  # a task of one's own need not inherit
        settings=TaskSettings(
            checkpoint=model.source,
            checkpoint_fingerprint=about["model"],
            data_fingerprints={task.name: settings.pop("data")},
            prompt=str(settings.pop("prompt", "") or model.processor.prompt),
            decoding={**settings.pop("generation", {}), **settings, "precision": about["precision"], **more},
            versions=program_versions(),
        ),
        examples=task.examples(rows, scored) if rank() == 0 else (),
        example_metric=task.example_metric,
        labels=getattr(task, "labels", None) or TaskLabels(),
        headline=task.headline,
    )
    if rank() != 0 or not config.attention:
        return report

    def pixels(example: Example) -> torch.Tensor:
        return model.processor.image(Path(str(example.image)))

    if getattr(task, "matches_words", False):  # outside the block below: these maps need gradients
        network = model.image_text(f"task {task.name}")
        report = with_word_views(report, network, model.processor, pixels, examples_per_task=config.examples)
    with torch.inference_mode(), suitable_autocast(model.network):
        return with_attention(
            report,
            model.network,
            pixels,
            texts=(lambda some: model.processor.questions([clean_question(one.question) for one in some]))
            if model.network.question_to_qformer
            else None,
            examples_per_task=config.examples,
        )


@contextmanager
def _from_features(model: Blip2, config: DictConfig) -> Iterator[tuple[Blip2, dict[str, str]]]:
    """The model, reading stored features of images if there are, and the settings that this adds.

    Raises:
        ConfigError: if they are of another tower or transform.
    """
    if config.features is None:
        yield model, {}
        return
    features = open_features(config.features if isinstance(config.features, str) else list(config.features))
    tower = model.network.vision_model
    features.check_tower(tower_settings(model.network.vision_config, tower), tower_fingerprint(tower))
    reader = model.reading(feature_processor(model.processor, features))
    with tower.reading_features():
        yield reader, {"features": features.fingerprint()}


def _say(
    reports: list[TaskReport], folder: Path, examples: int, closing: Mapping[str, Sequence[str]], runs: Sequence[Path]
) -> None:
    """Write results and page, and print scores and paths."""
    results = write_results(folder / RESULTS, reports)
    page = write_report(folder / PAGE, reports, run_folders=runs, examples_per_task=examples)
    print_scores(reports)
    print_chosen_scores(reports, closing)
    for name, path in {"results": results, "page": page, "predictions": folder / PREDICTIONS}.items():
        echo(f"{name + ':':12} {path}")


def _join_processes(device: str) -> str:
    """Form a group with the other processes of torchrun, if there are; returns the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    local = int(os.environ["LOCAL_RANK"])
    if on_gpu:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return f"cuda:{local}" if on_gpu else "cpu"


def _source(config: DictConfig, task: EvaluationTask) -> str:
    """The model that a task is about.

    Raises:
        ConfigError: if none is named.
    """
    named = config.checkpoints.get(task.kind) or config.checkpoint
    if named is None:
        raise ConfigError(
            f"task {task.name} has no checkpoint: pass checkpoint=<export, Hugging Face folder or id, LAVIS file>"
        )
    return find_source(str(named), config.paths.output_dir, "checkpoint")


def _load(config: DictConfig, source: str, device: str) -> Blip2:
    options: Mapping[str, Any] = {
        name: config[name]
        for name in (
            "dtype",
            "quantization",
            "vision_quantization",
            "language_model",
            "vision_weights",
            "tokenizer",
        )
    }
    return load_pretrained(source, device=device, **options)[0]


def _weights_of(model: Blip2) -> str:
    """SHA-256 of all weights but the language model's own, which its name identifies."""
    weights = {
        name: parameter.detach().cpu()
        for name, parameter in plain_weights(model.network.named_parameters())
        if not name.startswith("language_model.") or is_adapter(name)
    }
    return fingerprint(weights)


def _precision(model: Blip2) -> str:
    tower = model.network.vision_model.quantization
    precision = str(model.network.frozen_dtype).removeprefix("torch.")
    return precision if tower == "none" else f"{precision}, tower {tower}"
