"""blip2_train: training and evaluation of BLIP-2 (Li et al., 2023, arXiv:2301.12597).

The few names below are the public API; they are imported when first used, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

__version__ = "0.1.0"

# transformers imports torchao wherever that is installed, and torch then warns twice about an enum of torchao's
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)

_HOMES = {
    "compose": "blip2_train.config.compose",
    "train": "blip2_train.cli.train.run",
    "compose_evaluation": "blip2_train.config.compose",
    "evaluate": "blip2_train.cli.evaluate",
    "load_pretrained": "blip2_train.pretrained",
    "Blip2": "blip2_train.evaluation.inference",
    "Processor": "blip2_train.data.batches.processor",
    "open_image": "blip2_train.data.batches.image_inputs",
    "WebLimits": "blip2_train.data.storage.web",
    "ImageTextModel": "blip2_train.models.image_text",
    "GenerativeModel": "blip2_train.models.generative",
    "VisionConfig": "blip2_train.models.configs",
    "QFormerConfig": "blip2_train.models.configs",
    "LanguageModelConfig": "blip2_train.models.configs",
    "GenerationOptions": "blip2_train.models.configs",
    "RepresentationObjective": "blip2_train.objectives.representation",
    "GenerationObjective": "blip2_train.objectives.generation",
    "OptimizerConfig": "blip2_train.optim.config",
    "SourceConfig": "blip2_train.data.sources.config",
    "ImageTextDataModule": "blip2_train.training.data_module",
    "RepresentationModule": "blip2_train.training.representation",
    "GenerationModule": "blip2_train.training.generation",
    "load_initial_weights": "blip2_train.checkpoints.initial_weights",
    "load_image_text_collator": "blip2_train.data.batches.collate",
    "CLIP_MEAN": "blip2_train.data.batches.transforms",
    "CLIP_STD": "blip2_train.data.batches.transforms",
    "seed_everything": "blip2_train.training.lifecycle",
    "CaptionMetric": "blip2_train.evaluation.metrics.metric_states",
    "AnswerMetric": "blip2_train.evaluation.metrics.metric_states",
    "RecallMetric": "blip2_train.evaluation.metrics.metric_states",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from blip2_train.transformers_names import OF_THE_PACKAGE, no_attribute

        raise no_attribute(f"module {__name__!r}", name, OF_THE_PACKAGE)
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        lacking = (error.name or "").partition(".")[0]
        if lacking == __name__:
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs {lacking}, which this Python ({sys.executable}) does not have: activate the "
            "environment that has the project (source .venv/bin/activate), or pip install -e . into this one",
            name=lacking,
        ) from None
    except AttributeError as error:  # of something that is imported: Python would say that the name does not exist
        raise ImportError(f"{__name__}.{name} cannot be imported: {_HOMES[name]} fails: {error}") from error


def __dir__() -> list[str]:
    """The public API, also of what is not imported yet."""
    return sorted(__all__)
