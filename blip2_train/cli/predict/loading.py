"""Loads the model that the options of `predict.py` name."""

from __future__ import annotations

import argparse
import sys

import torch

from blip2_train.evaluation.inference import Blip2
from blip2_train.models.attention_kernels import turn_kernels_off
from blip2_train.pretrained import load_pretrained
from blip2_train.system.screen import echo
from blip2_train.training.earlier_runs import find_source


def load_model(options: argparse.Namespace) -> Blip2:
    """The model, which a line on standard error names."""
    turn_kernels_off(options.attention_kernels_off, "--attention-kernel-off")
    model, _ = load_pretrained(
        find_source(options.model, "outputs", "--model"),
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
        vision_quantization=options.vision_quantization,
        language_model=options.language_model,
        vision_weights=options.vision_weights,
        tokenizer=options.tokenizer,
    )
    echo(f"model: {model.source} on {model.device}", file=sys.stderr)
    slow = any(parameter.dtype == torch.float16 for parameter in model.network.parameters())
    if slow and model.device.type == "cpu" and options.dtype is None:
        echo("its float16 is slow on a CPU: --dtype bfloat16 or float32 is faster", file=sys.stderr)
    return model
