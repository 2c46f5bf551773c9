"""Quantises a language model layer by layer while transformers reads its files, so that it is never whole in memory.

The one use of `transformers.core_model_loading` and of its quantisers' private methods. Tried with transformers 5.24.0
and 5.25.0.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from blip2_train.models.quantization import QuantizedLinear, bitsandbytes, quantize_language_model, quantize_weight

_METHOD = "blip2_train"


def loading_options(quantization: str) -> dict[str, Any]:
    """Further arguments for `from_pretrained`.

    Args:
        quantization: `none`, `int8` or `int4`.

    Raises:
        ConfigError: if bitsandbytes is not installed, which transformers would report in 200 lines.

    Example:
        >>> loading_options("none")
        {}
    """
    if quantization != "none":
        bitsandbytes()
    return {} if quantization == "none" else {"quantization_config": WhileLoading(quantization)}


@register_quantization_config(_METHOD)
class WhileLoading(QuantizationConfigMixin):
    """Makes transformers quantise with `quantize_language_model`."""

    quant_method: Any

    def __init__(self, quantization: str = "int8", **_: Any) -> None:
        self.quant_method = _METHOD
        self.quantization = quantization


@register_quantizer(_METHOD)
class WhileLoadingQuantizer(HfQuantizer):
    """What transformers calls around and during loading."""

    quantization_config: Any

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        quantize_language_model(model, self.quantization_config.quantization)
        for layer in model.modules():
            if isinstance(layer, QuantizedLinear):  # older versions cast what they read to the dtype found here
                layer.weight = nn.Parameter(layer.weight.to(model.dtype), requires_grad=False)
        return model

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **context: Any) -> bool:
        """Whether a parameter of the model is the weight of a quantised layer."""
        path, _, name = param_name.rpartition(".")
        return name == "weight" and isinstance(model.get_submodule(path), QuantizedLinear)

    def get_quantize_ops(self) -> ConversionOps:
        """What turns such a weight, as read, into what the layer stores."""
        return _QuantizeWeight()

    def is_serializable(self) -> bool:
        """Quantised weights are made anew at each start, never saved."""
        return False

    @property
    def is_trainable(self) -> bool:
        """The layers pass gradients to their input."""
        return True


class _QuantizeWeight(ConversionOps):
    def convert(self, input_dict: dict[str, Any], *_: Any, **context: Any) -> dict[str, Any]:
        stored: dict[str, Tensor] = {}
        for name, value in input_dict.items():
            path = name.rpartition(".")[0]
            layer = context["model"].get_submodule(path)
            assert isinstance(layer, QuantizedLinear)
            weight: Tensor = value[0] if isinstance(value, list) else value
            stored[name], stored[f"{path}.scale"] = quantize_weight(
                weight.T if layer.transposed else weight, layer.quantization
            )
        return stored
