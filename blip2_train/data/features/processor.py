"""Reads stored features of images where a processor would make pixel values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from blip2_train.data.batches.image_inputs import ImageInput, content_of, name_of
from blip2_train.data.batches.processor import Processor
from blip2_train.data.features.store import StoredFeatures
from blip2_train.data.rejections import UnusableSample
from blip2_train.errors import ConfigError, ShardError


@dataclass(frozen=True, kw_only=True)
class FeatureProcessor(Processor):
    """A processor whose images are stored features, of the crop of evaluation."""

    features: StoredFeatures

    def image(self, image: ImageInput) -> Tensor:
        """Features `(1, P, Dv)` of an image's file; a tensor is returned as it is.

        Raises:
            ShardError: naming a file that cannot be read, or has no features.
            ConfigError: if it is no file.
        """
        if isinstance(image, Tensor):
            return image
        if (content := content_of(image, self.web)) is None:
            raise ConfigError("stored features are found by the content of files; give the path of the image")
        try:
            return self.features.evaluation_crop(content, torch.Generator())
        except (UnusableSample, ShardError) as error:
            reason = error.detail if isinstance(error, UnusableSample) else error
            raise ShardError(f"{name_of(image)}: {reason}") from error


def feature_processor(processor: Processor, features: StoredFeatures) -> FeatureProcessor:
    """The processor with stored features instead of the images.

    Raises:
        ConfigError: if the features are those of another transform.
    """
    sizes = {"image_size": processor.image_size, "mean": processor.mean, "std": processor.std}
    features.check_evaluation({name: _plain(value) for name, value in sizes.items()})
    return FeatureProcessor(**{one.name: getattr(processor, one.name) for one in fields(Processor)}, features=features)


def _plain(value: Any) -> Any:
    return [float(number) for number in value] if isinstance(value, tuple | list) else value
