"""The initial weights of adapters: fresh ones, or those of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from blip2_train.checkpoints.adapter_files import described_adapters
from blip2_train.checkpoints.export import Manifest
from blip2_train.checkpoints.load_rules import LoadReport, LoadRule, load_by_rule
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.adapters import add_adapters, resolve_adapters
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import AdapterConfig


def check_adapters(
    model: Blip2Model, config: AdapterConfig | None, manifest: Manifest | None, init_from: str | None
) -> AdapterConfig | None:
    """The settings with their layers named, after a check that the run can use them and that its export has the same.

    Args:
        model: As built, without weights.
        config: Of the run; None = no adapters.
        manifest: Of the export that the run starts from, if it does.
        init_from: That export, for messages.

    Raises:
        ConfigError: if the model has no such layers, or peft is not installed.
        CheckpointMismatch: if the export's adapters are others.
    """
    config = None if config is None else resolve_adapters(model, config)
    before = None if manifest is None else described_adapters(manifest.architecture)
    if before is not None and (config is None or replace(config, dropout=before.dropout) != before):
        settings = f"peft=lora peft.r={before.r} peft.alpha={before.alpha:g}"
        layers = ",".join(before.target_modules or ())
        raise CheckpointMismatch(
            f"export {init_from} was trained with adapters on its language model, and its weights are of no use "
            f"without them: pass {settings} 'peft.target_modules=[{layers}]' to go on with them"
        )
    return config


def attach_adapters(model: Blip2Model, config: AdapterConfig, state: Mapping[str, Tensor], what: str) -> LoadReport:
    """Add adapters to a model that has all its weights, with the weights of `state`, or fresh if that is empty.

    Args:
        model: Changed in place.
        config: Which layers, and the sizes.
        state: As `read_adapter` gives it.
        what: Its origin, for messages.

    Raises:
        CheckpointMismatch: if the weights belong to other layers or sizes.
        ConfigError: if peft is not installed.
    """
    add_adapters(model, config)
    own = tuple(name for name, _ in model.named_parameters() if is_adapter(name))
    about = f"adapters on {config.target}"
    if not state:
        return LoadReport(what=f"{about} (r {config.r}, alpha {config.alpha:g})", loaded=(), fresh=own, ignored=())
    return load_by_rule(model, state, LoadRule(what=f"{about} of {what}", only=own))
