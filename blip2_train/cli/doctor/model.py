"""Whether model, objective, optimiser and tokenizer fit together, checked without making one weight."""

from __future__ import annotations

from omegaconf import DictConfig

from blip2_train.cli.doctor.findings import OK, Finding, attempt
from blip2_train.cli.meta_model import meta_model
from blip2_train.config.compose import instantiate
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.freezing import describe_parameters
from blip2_train.objectives.matching import CHANCE
from blip2_train.types import Collator


def plan_model(config: DictConfig, collator: Collator | None) -> tuple[Blip2Model | None, list[Finding]]:
    """The recipe's model with its adapters on the meta device, as it trains; None if it cannot be built.

    Args:
        config: The run.
        collator: Of its data; None = it cannot be built, and is not compared with the model.
    """
    findings: list[Finding] = []
    model = attempt(findings, lambda: meta_model(config))
    if model is None:
        return None, findings
    if collator is not None:
        attempt(
            findings,
            lambda: instantiate(
                config.module,
                model=model,
                objective=instantiate(config.objective),
                optimizer=instantiate(config.optim),
                collator=collator,
            ),
        )
    parts = describe_parameters(model)
    trainable, total = sum(part.trainable for part in parts), sum(part.parameters for part in parts)
    findings.append(Finding(OK, f"trainable parameters: {trainable:,} of {total:,}"))
    if config.objective.get("itm_weight") and config.init_from is None:
        findings.append(Finding(OK, f"ITM stays near {CHANCE:.4f} at first; how long: docs/itm-stays-at-0.63.md"))
    if config.data.get("features") is not None and model.vision_model.frozen:
        model.vision_model.read_features()  # as the run does: no weights of the tower are in memory
    return model, findings
