"""Stage 2: its model, its batches, and the plans that are compared.

Shape letters: B batch, S tokens read, T tokens with a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from omegaconf import DictConfig
from plain import no_mark

from benchmark import generation_plans, text_generation
from benchmark.agreement import ROUNDING, prove_ids, prove_losses, prove_training
from benchmark.huggingface import as_loaded, share_weights
from benchmark.options import BenchmarkOptions, precision_type
from benchmark.plans import TOWER_PLANS, CompiledOnce, Forward, Plan, tower_plan
from benchmark.random_text import random_ids, random_prompts
from benchmark.stage import GenerationWorkload, Stage
from benchmark.workload import leave_tower_out, random_images, random_lengths, tower_config
from blip2_train.config.compose import instantiate
from blip2_train.data.batches.generation_collate import IGNORED
from blip2_train.errors import ConfigError
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.types import GenerationBatch

PROVED_ON = 4
"""Samples that agreement in float32 is shown on."""
PROMPT = 4
"""Tokens of the prompts that text is generated from: "a photo of" and a start token."""
_WEIGHT_SCALE = 2.0
"""Factor on the random matrices of the language model. As transformers draws them, a T5 generates the same for every
image, and equal ids would prove nothing."""


class GenerationStage(Stage):
    """The frozen language model generates the text."""

    default_plans: ClassVar = {
        "cpu": ("huggingface", "all_positions", "labelled"),
        "cuda": ("huggingface", "all_positions", "labelled", "compiled"),
    }
    about: ClassVar = {
        "huggingface": "transformers' Blip2ForConditionalGeneration on the same weights",
        "all_positions": "this project's model, vocabulary head at all positions",
        "labelled": "this project's step: vocabulary head at labelled positions, chunk by chunk",
        "compiled": "as labelled; tower, Q-Former and the language model's layers by torch.compile",
    }

    def build_model(self, config: DictConfig, options: BenchmarkOptions) -> GenerativeModel:
        """The recipe's model with random weights in float32, on torch's default device, in training mode."""
        vision = replace(tower_config(config, options), dtype="float32")
        language = replace(instantiate(config.model.language), weights="random", dtype="float32")
        if language.quantization != "none":
            raise ConfigError(
                f"model.language.quantization={language.quantization} is not measured here, because transformers has "
                "no such plan; leave it out"
            )
        model = GenerativeModel(vision, instantiate(config.model.qformer), language)
        if not options.vision:
            leave_tower_out(model)
        with torch.no_grad():
            for parameter in model.language_model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(_WEIGHT_SCALE)
        return model.train()

    def synthetic_batch(
        self, model: GenerativeModel, options: BenchmarkOptions, max_text_length: int, generator: torch.Generator
    ) -> GenerationBatch:
        """Random images and captions, padded to the longest; of an encoder-decoder's, up to half is the prefix."""
        lengths = random_lengths(options, generator)
        if model.is_encoder_decoder:
            prefix = 1 + (torch.rand(lengths.shape, generator=generator) * (lengths // 2)).long()
            input_ids, mask = random_ids(model, prefix, generator)
            labels, is_text = random_ids(model, lengths - prefix, generator)
            labels = labels.masked_fill(~is_text, IGNORED)
        else:
            input_ids, mask = random_ids(model, lengths, generator)
            labels = input_ids.masked_fill(~mask, IGNORED)
            labels[:, 0] = IGNORED  # the start token
        return GenerationBatch(
            pixel_values=random_images(model, len(lengths), generator),
            image_ids=torch.arange(len(lengths)),
            sample_ids=tuple(f"synthetic/{row}" for row in range(len(lengths))),
            rejected=(),
            input_ids=input_ids,
            attention_mask=mask,
            labels=labels,
            target_positions=(labels.flatten() != IGNORED).nonzero().flatten(),
            references=((),) * len(lengths),
        )

    def amounts(self, model: GenerativeModel, batch: GenerationBatch) -> dict[str, float]:
        """Samples, and tokens that the language model reads or predicts beside the queries."""
        labelled = len(batch.target_positions) if model.is_encoder_decoder else 0
        return {"samples": float(len(batch)), "text_tokens": float(int(batch.attention_mask.sum()) + labelled)}

    def build_plans(
        self, names: Sequence[str], model: GenerativeModel, objective: Any, count_only: bool = False
    ) -> list[Plan]:
        """The plans of these names, over the weights of `model`."""
        compiled = CompiledOnce(model, count_only)
        makers: dict[str, Callable[[], Forward]] = {
            "huggingface": lambda: generation_plans.theirs(model, share_weights(model)),
            "all_positions": lambda: generation_plans.all_positions(model),
            "labelled": lambda: generation_plans.labelled(model, objective),
            "compiled": lambda: generation_plans.labelled(compiled(), objective),
        }
        return [
            tower_plan(name, model, compiled, count_only)
            if name in TOWER_PLANS
            else Plan(name=name, about=self.about[name], forward=makers[name]())
            for name in names
        ]

    def prove(
        self, names: Sequence[str], model: GenerativeModel, objective: Any, options: BenchmarkOptions
    ) -> list[str]:
        """Losses and gradients of the plans that are not compiled, and what is generated, on a few samples."""
        exact = [name for name in names if name in self.about and name != "compiled"]
        few = replace(options, batch_size=min(PROVED_ON, options.batch_size))
        generator, device = torch.Generator().manual_seed(1), model.query_tokens.device
        model.eval()
        lines = []
        if len(exact) > 1:
            batch = self.synthetic_batch(model, few, options.tokens[1], generator).to(device)
            lines.append(prove_training(self.build_plans(exact, model, objective), model, batch))
        if options.generate and "huggingface" in names:
            lengths = torch.arange(few.batch_size) % PROMPT + 1
            prompts, twin = random_prompts(model, lengths, generator).to(device), share_weights(model)
            for search, settings in _searches(options).items():
                theirs, ours = text_generation.theirs(model, twin, settings), text_generation.ours(model, settings)
                generated = {"huggingface": theirs(prompts, no_mark), "blip2_train": ours(prompts, no_mark)}
                lines.append(prove_ids(search, generated))
        model.train()
        return [f"float32, {few.batch_size} samples: {line}" for line in lines]

    def use_precision(self, model: GenerativeModel, options: BenchmarkOptions) -> None:
        """Put language model and frozen tower into the arithmetic of the rest, so that no plan has to cast weights."""
        dtype = precision_type(options.precision)
        cast(Any, model.language_model).to(dtype)
        if model.vision_config.frozen:
            model.vision_model.to(dtype)

    def prove_timed(self, plans: Sequence[Plan], model: GenerativeModel, batch: Any, precision: str) -> list[str]:
        """The losses of the plans that are timed."""
        steps = [plan for plan in plans if plan.group == "step"]
        if len(steps) < 2:
            return []
        model.eval()
        line = prove_losses(steps, batch, ROUNDING[precision])
        model.train()
        return [f"precision {precision}, {len(batch)} samples: {line}"]

    def generation_workload(
        self, names: Sequence[str], model: GenerativeModel, options: BenchmarkOptions
    ) -> GenerationWorkload | None:
        """Greedy and beam search, here and by transformers."""
        if not options.generate:
            return None
        model.eval()
        twin = share_weights(model) if "huggingface" in names else None
        if twin is not None and options.precision != "32":
            twin = as_loaded(twin)
        plans = []
        for search, settings in _searches(options).items():
            if twin is not None:
                theirs = text_generation.theirs(model, twin, settings)
                plans.append(text_generation.as_plan(f"huggingface {search}", "transformers' generate", search, theirs))
            ours = text_generation.ours(model, settings)
            plans.append(text_generation.as_plan(f"blip2_train {search}", "this project's generate", search, ours))
        lengths, generator = torch.full((options.batch_size,), PROMPT), torch.Generator().manual_seed(0)
        return GenerationWorkload(
            plans=plans,
            batch=random_prompts(model, lengths, generator),
            amounts={"images": float(len(lengths)), "new_tokens": float(len(lengths) * options.new_tokens)},
            note=f"{options.new_tokens} new tokens after {PROMPT} of a prompt, random images",
        )


def _searches(options: BenchmarkOptions) -> dict[str, GenerationOptions]:
    length: dict[str, Any] = {"min_new_tokens": options.new_tokens, "max_new_tokens": options.new_tokens}
    return {
        "greedy": GenerationOptions(num_beams=1, **length),
        f"{options.beams} beams": GenerationOptions(num_beams=options.beams, **length),
    }
