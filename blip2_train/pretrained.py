"""`blip2_train.load_pretrained`: a model of any known format, ready for use on a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from blip2_train.checkpoints.convert.huggingface import RETRIEVAL
from blip2_train.checkpoints.pretrained import Pretrained, open_pretrained
from blip2_train.checkpoints.transformers_arguments import translated
from blip2_train.data.batches.processor import Processor
from blip2_train.data.storage.web import WebLimits
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.report.content import weights_name
from blip2_train.models.frozen_precision import refuse_overflow
from blip2_train.models.tower_quantization import check_tower_quantization, quantize_tower
from blip2_train.system.devices import find_device
from blip2_train.training.earlier_runs import find_source


def load_pretrained(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str = "none",
    vision_quantization: str = "none",
    language_model: str | None = None,
    vision_weights: str | None = None,
    tokenizer: str | None = None,
    web: WebLimits | None = None,
    **transformers_arguments: Any,
) -> tuple[Blip2, Processor]:
    """Load a trained model with what belongs to it.

    Args:
        source: Export or run folder of this project, `last:<recipe>` for the newest export of a recipe below `outputs`,
            Hugging Face BLIP-2 folder or hub id, LAVIS or Paddle file.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; None or `auto` = a GPU if there is one.
        dtype: `float32`, `float16` or `bfloat16` for the language model and a frozen tower; None = as configured.
        quantization: `none`, `int8` or `int4` for the linear layers of the language model.
        vision_quantization: `none`, or `int8` or `float8` for the products of a frozen tower, see `quantize_tower`.
        language_model: Folder or hub id of the language model, for sources that do not hold it.
        vision_weights: File of the tower's weights, for sources that do not hold them.
        tokenizer: Folder or hub id of the Q-Former's tokenizer, for sources that do not hold it.
        web: What the processor may fetch of images given as addresses; None = files of up to 50 MB from public hosts.
        **transformers_arguments: Those of transformers' `from_pretrained` (`torch_dtype`, `device_map`, `load_in_8bit`,
            `quantization_config` …): translated, or refused with what is here, see `transformers_arguments`.

    Returns:
        The model, and the processor it uses. Both kinds of model describe images, see `Blip2`.

    Raises:
        CheckpointMismatch: if the source is not known or damaged, or its parts do not fit.
        ConfigError: if an option cannot be used, or `last:` finds none.

    Example:
        ```python
        model, processor = load_pretrained("outputs/demo_stage2_opt/export")
        print(model.caption(["image.jpg"]), model.answer(["image.jpg"], "what is on the left?"))
        ```
    """
    own = {"device": device, "dtype": dtype, "quantization": quantization}
    chosen = translated(transformers_arguments, own)
    device, dtype, quantization = chosen["device"], chosen["dtype"], chosen["quantization"]
    check_tower_quantization(vision_quantization, "vision_quantization")
    target = find_device(device)
    source = find_source(str(source), "outputs", "source")
    transformers.utils.logging.disable_progress_bar()
    loaded = open_pretrained(
        source,
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        quantization=quantization,
        language_model=language_model,
        vision_weights=vision_weights,
        tokenizer=tokenizer,
    )
    network = loaded.model
    if network.language_config is not None:
        refuse_overflow(network, network.language_config.dtype)
    name = weights_name(source, loaded.source)
    network.to(target)
    quantize_tower(network.vision_model, vision_quantization)
    processor = loaded.processor if web is None else replace(loaded.processor, web=web)
    return Blip2(network, processor, name, _has_prediction_head(loaded)), processor


def _has_prediction_head(loaded: Pretrained) -> bool:
    """Whether the head that describes was trained: a conversion from transformers' retrieval model has drawn one."""
    drawn = any(name.startswith("lm_head.dense.") for report in loaded.reports for name in report.fresh)
    return not drawn and not loaded.manifest.recipe.startswith(f"converted from Hugging Face {RETRIEVAL} ")
