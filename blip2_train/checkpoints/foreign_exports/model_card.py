"""The README of an exported model: what it is, how it was trained, how to use it, what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blip2_train.checkpoints.architecture import tower_details
from blip2_train.checkpoints.convert.transformers4 import difference_from_4
from blip2_train.checkpoints.export import Manifest
from blip2_train.checkpoints.hub import is_on_this_machine
from blip2_train.data.batches.processor import Processor
from blip2_train.models.blip2 import Blip2Model
from blip2_train.system.records import parse_yaml

_CARD = """\
---
library_name: transformers
pipeline_tag: {pipeline}
tags:
- blip-2
- vision-language
---

# BLIP-2: {recipe}

{about} BLIP-2 is described in [Li et al., 2023](https://arxiv.org/abs/2301.12597).
This folder was written by blip2_train {version}. {readers}

## Use

```python
{example}
```

## Training

| | |
| --- | --- |
{training}

## Scores

{scores}

## Lineage

{lineage}

## Limitations

{limitations}
"""
_GENERATION = """\
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

processor = Blip2Processor.from_pretrained("<this folder>")
model = Blip2ForConditionalGeneration.from_pretrained("<this folder>")
inputs = processor(images=Image.open("image.jpg"), text={prompt!r}, return_tensors="pt")
ids = model.generate(**inputs, num_beams=5, max_new_tokens=30)
print(processor.batch_decode(ids, skip_special_tokens=True)[0].strip())"""
_RETRIEVAL = """\
from PIL import Image
from transformers import Blip2ForImageTextRetrieval, Blip2Processor

processor = Blip2Processor.from_pretrained("<this folder>")
model = Blip2ForImageTextRetrieval.from_pretrained("<this folder>")
texts = ["a first text", "another"]
inputs = processor(images=Image.open("image.jpg"), text=texts, padding=True, return_tensors="pt")
print(model(**inputs).logits_per_image)  # similarity; with use_image_text_matching_head=True: (no match, match)"""


def model_card(model: Blip2Model, processor: Processor, manifest: Manifest, config: str, beside: Sequence[str]) -> str:
    """The card as Markdown.

    Args:
        model: The model.
        processor: Its transform and tokenizers.
        manifest: Recipe, steps, scores and lineage.
        config: Configuration of the run, as YAML text; may be empty.
        beside: Names of weights that transformers does not load.
    """
    scores = "\n".join(f"| `{name}` | {value:.4g} |" for name, value in sorted(manifest.metrics.items()))
    example = _GENERATION.format(prompt=processor.prompt) if model.language_config is not None else _RETRIEVAL
    return _CARD.format(
        pipeline=model.huggingface_pipeline,
        recipe=manifest.recipe,
        about=_about(model, manifest),
        version=manifest.version,
        readers=_other_versions(model) or "transformers 4.57 and 5 read it alike.",
        example=example,
        training="\n".join(f"| {key} | {value} |" for key, value in _training(model, manifest, config).items()),
        scores=f"| score | value |\n| --- | --- |\n{scores}" if scores else "None were measured.",
        lineage=_lineage(manifest),
        limitations="\n".join(f"* {line}" for line in _limitations(model, beside)),
    )


def _short(name: str) -> str:
    """A hub id as it is, a path without the folders of this machine."""
    return Path(name).name if is_on_this_machine(name) else name


def _other_versions(model: Blip2Model) -> str:
    return "" if model.text_config is None else difference_from_4(model.text_config.model_type)


def _about(model: Blip2Model, manifest: Manifest) -> str:
    queries, vision = model.qformer_config.num_queries, model.vision_config
    details = tower_details(vision.image_size, vision.overrides)
    reads = f"A Q-Former of {queries} queries reads the tower `{vision.name}` ({details})"
    if model.language_config is not None:
        language = _short(model.language_config.name)
        if "adapters" in manifest.architecture:
            return f"{reads} and feeds the language model `{language}`, changed by LoRA adapters (stage 2)."
        return f"{reads} and feeds the frozen language model `{language}` (stage 2)."
    return f"{reads} and compares images with texts (stage 1)."


def _training(model: Blip2Model, manifest: Manifest, config: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "recipe": f"`{manifest.recipe}`",
        "stage": manifest.stage,
        "optimiser steps": manifest.step,
    }
    values = parse_yaml(config, "the configuration of the export", "export the run again") if config else {}
    if values:
        named = {"global_batch_size": "pairs per step", "seed": "seed", "max_text_length": "tokens per text"}
        facts |= {name: values[key] for key, name in named.items() if key in values}
        optim = values.get("optim")
        if isinstance(optim, Mapping) and "lr" in optim:
            facts["learning rate"] = optim["lr"]
        facts["data"] = _data(values.get("data"))
    facts["trained parameters"] = f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}"
    return {key: value for key, value in facts.items() if value not in (None, "")}


def _data(values: Any) -> str:
    """Names of the sources; of one without a name the last part of its path, which names no folders of this machine."""
    sources = values.get("sources", []) if isinstance(values, Mapping) else []
    named = (source for source in sources if isinstance(source, Mapping))
    names = (source.get("name") or Path(str(source.get("path") or "")).name for source in named)
    return ", ".join(f"`{name}`" for name in names if name)


def _lineage(manifest: Manifest) -> str:
    lines = []
    if manifest.parent:
        lines.append(f"Training started from weights with SHA-256 `{manifest.parent}`.")
    if manifest.frozen_fingerprint:
        lines.append(f"The frozen parts have SHA-256 `{manifest.frozen_fingerprint}`.")
    if manifest.sha256:
        lines.append(f"The export that this folder was made from has SHA-256 `{manifest.sha256}`.")
    return "\n".join(lines) or "What the weights started from is not recorded."


def _limitations(model: Blip2Model, beside: Sequence[str]) -> list[str]:
    lines = [
        "It repeats the errors and biases of its training data and of its frozen parts, and may describe what is not "
        "in the image; do not use it where that does harm.",
        f"Images are resized to a square of {model.vision_config.image_size} pixels; small print is lost.",
        "transformers computes the last layer norm of the tower with the eps of all the others instead of 1e-5, and "
        "resizes images with other rounding; scores differ in the last digits.",
    ]
    if model.language_config is not None:
        language = _short(model.language_config.name)
        lines.append(f"It generates text no better than `{language}`, and in no other languages.")
    if beside:
        lines.append(
            "transformers does not load the Q-Former's own prediction head and the temperature of the contrastive "
            "loss; they are in `blip2_train/`."
        )
    return lines
