"""Whether Java runs, where a recipe's validation needs it."""

from __future__ import annotations

from hydra.utils import get_class
from omegaconf import DictConfig

from blip2_train.cli.doctor.findings import OK, PROBLEM, WARNING, Finding
from blip2_train.evaluation.metrics.java import JavaError, JavaProgram, find_java
from blip2_train.training.answering import AnsweringModule
from blip2_train.training.generation import GenerationModule

_SECONDS = 15.0
"""For Java to start."""


def examine_java(config: DictConfig) -> list[Finding]:
    """Start Java if validation scores captions, whose official tokeniser is a Java program."""
    kind = get_class(config.module["_target_"])
    captions = issubclass(kind, GenerationModule) and not issubclass(kind, AnsweringModule)
    if config.validate_every is None or not captions:
        return [Finding(OK, "not needed: validation scores no captions")]
    try:
        with JavaProgram("Java", ["-version"], _SECONDS) as java:
            java.finish()
        return [Finding(OK, f"{find_java()} starts; CIDEr in validation needs it")]
    except JavaError as error:
        decides = config.monitor is not None and config.monitor.endswith("cider")
        effect = f"monitor={config.monitor} stops the run" if decides else "validation will have no CIDEr"
        return [Finding(PROBLEM if decides else WARNING, f"{error}; without it {effect}")]
