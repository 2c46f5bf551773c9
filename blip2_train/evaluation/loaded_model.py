"""A trained model with its processor, on a device and in a precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from blip2_train.data.batches.processor import Processor
from blip2_train.errors import ConfigError
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.frozen_precision import cast_frozen_parts
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel
from blip2_train.system.devices import find_device
from blip2_train.transformers_names import OF_A_MODEL, no_attribute


class LoadedModel:
    """What every use of a trained model needs: the network, its processor, and what they can do.

    Args:
        network: The model with its weights, on the device where it is to run.
        processor: Its transform and tokenizers.
        source: Its origin, for messages.
        has_prediction_head: Whether the Q-Former of a stage-1 model has a trained head; transformers' retrieval models
            have none, and cannot describe.
    """

    def __init__(
        self,
        network: Blip2Model,
        processor: Processor,
        source: str = "it",
        has_prediction_head: bool = True,
    ) -> None:
        self.network, self.processor, self.source = network.eval(), processor, source
        self._has_prediction_head = has_prediction_head

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.network.parameters())
        kind = type(self.network).__name__
        return f"{type(self).__name__}({self.source!r}: {kind}, {count:,} parameters, on {self.device})"

    if not TYPE_CHECKING:  # a type checker knows which attributes there are

        def __getattr__(self, name: str) -> Any:
            """Lead on from a name of transformers or torch; called for what is not there alone.

            Raises:
                AttributeError: always.
            """
            network = self.__dict__.get("network")
            inside = network is not None and not name.startswith("_") and hasattr(network, name)
            raise no_attribute("a loaded model", name, OF_A_MODEL, f"model.network.{name} is it" if inside else "")

    def reading(self, processor: Processor) -> Self:
        """The same model with another processor, for instance of stored features."""
        return type(self)(self.network, processor, self.source, self._has_prediction_head)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.network.query_tokens.device

    def to(self, *target: str | int | torch.device | torch.dtype) -> Self:
        """Move to a device, or bring language model and tower to a precision; the Q-Former stays in float32.

        Args:
            *target: A device, a precision, or both: `to("cuda", torch.float16)`.

        Raises:
            ConfigError: if there is no such device here, or a part cannot compute in this precision.
        """
        for one in target:
            if isinstance(one, torch.dtype):
                cast_frozen_parts(self.network, one)
            else:
                self.network.to(find_device(one))
        return self

    def half(self) -> Self:
        """`to(torch.float16)`."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """`to(torch.bfloat16)`."""
        return self.to(torch.bfloat16)

    def float(self) -> Self:
        """`to(torch.float32)`."""
        return self.to(torch.float32)

    def cuda(self) -> Self:
        """`to("cuda")`."""
        return self.to("cuda")

    def cpu(self) -> Self:
        """`to("cpu")`."""
        return self.to("cpu")

    def eval(self) -> Self:
        """The same model, which is always in evaluation mode."""
        return self

    def check_describes(self) -> None:
        """Refuse a stage-1 model that came without prediction head.

        Raises:
            ConfigError: if this is one.
        """
        if not self._has_prediction_head and self.network.matches_texts:
            raise ConfigError(
                f"{self.source} has no prediction head for its Q-Former, so it cannot describe; give an export of "
                "blip2_train, a LAVIS file, or a generative model (stage 2)"
            )

    def generative(self, user: str) -> GenerativeModel:
        """The network, if it has a language model.

        Args:
            user: The caller, for the message: `task demo_vqa`.

        Raises:
            ConfigError: if it has none.
        """
        if not isinstance(self.network, GenerativeModel):
            raise self._wrong_kind(user, GenerativeModel.title)
        return self.network

    def image_text(self, user: str) -> ImageTextModel:
        """The network, if it embeds and matches texts; arguments and errors as for `generative`."""
        if not isinstance(self.network, ImageTextModel):
            raise self._wrong_kind(user, ImageTextModel.title)
        return self.network

    def _wrong_kind(self, user: str, needed: str) -> ConfigError:
        published = "blip2-opt-2.7b" if needed == GenerativeModel.title else "blip2-itm-vit-g"
        return ConfigError(
            f"{user} needs {needed}, but {self.source} is {self.network.title}; give the export of such a run, or a "
            f"published one like Salesforce/{published}"
        )
