"""Which stage of training a recipe belongs to."""

from __future__ import annotations

from hydra.utils import get_class
from omegaconf import DictConfig

from benchmark.generation import GenerationStage
from benchmark.representation import RepresentationStage
from benchmark.stage import Stage
from blip2_train.models.generative import GenerativeModel


def stage_of(config: DictConfig) -> Stage:
    """The stage of a recipe's model."""
    return GenerationStage() if issubclass(get_class(config.model._target_), GenerativeModel) else RepresentationStage()
