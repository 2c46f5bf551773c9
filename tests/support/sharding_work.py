"""What one and two processes do alike in `test_sharding`: short runs under Lightning, with everything to compare."""

from __future__ import annotations

import dataclasses
import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from reference_cases import rows_of
from tiny import image_text_batch, image_text_model
from tiny_generation import ARCHITECTURES, generation_batch, generative_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from blip2_train.distributed import mean_over_processes, rank, world_size
from blip2_train.errors import Blip2TrainError
from blip2_train.evaluation.held_out_pairs import RepresentationEvaluation
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.adapters import add_adapters
from blip2_train.models.configs import AdapterConfig, GenerationOptions
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.optim.config import OptimizerConfig
from blip2_train.training.module import TrainingModule
from blip2_train.training.sharding import ShardedStrategy, blocks_to_shard, gather_whole
from blip2_train.types import GenerationBatch, ImageTextBatch

STEPS, SAVED_AT, SHARE = 4, 2, 2
"""Optimiser steps, the step after which a checkpoint is written, samples per micro-batch of each of two processes."""
_TOWER = {"vision": {"frozen": False}, "optim": {"layer_decay": 0.5, "clip_norm": 0.05}}
CASES: dict[str, dict[str, Any]] = {
    "opt": {"family": "opt"},
    "opt in float16": {"family": "opt", "dtype": "float16"},
    "opt in float16 with adapters": {"family": "opt", "dtype": "float16", "adapters": {"dropout": 0.0}},
    "opt with adapters": {"family": "opt", "adapters": {"r": 3}, "accumulate": 2, "optim": {"clip_norm": 0.05}},
    "opt with tower": {"family": "opt", "gradient_checkpointing": True, **_TOWER},
    "t5": {"family": "t5"},
    "t5 in bfloat16 with tower": {"family": "t5", "dtype": "bfloat16", "precision": "bf16-mixed", **_TOWER},
    "llama, accumulated": {"family": "llama", "accumulate": 2},
    "stage 1 with tower": {"family": None, **_TOWER},
}
IN_16_BITS = [case for case in CASES if "dtype" in CASES[case]]
RESUMED = "opt with tower"
GENERATING, BEAMS = ("opt", "t5"), (1, 3)
_LARGE = {
    **ARCHITECTURES["opt"],
    "hidden_size": 128,
    "word_embed_proj_dim": 128,
    "ffn_dim": 512,
    "num_hidden_layers": 8,
}


def make_model(case: str) -> Any:
    """The model of a case: in float64, so that the order of sums does not show, unless it runs in 16 bits."""
    options = {key: value for key, value in CASES[case].items() if key not in ("optim", "accumulate", "precision")}
    family, adapters = options.pop("family"), options.pop("adapters", None)
    model = image_text_model(**options) if family is None else generative_model(family, **options)
    if adapters is not None:
        add_adapters(model, AdapterConfig(**adapters))
        for name, parameter in model.named_parameters():
            parameter.data += 0.05 if is_adapter(name) else 0.0
    if case not in IN_16_BITS:
        return model.double()
    with torch.no_grad():
        for (
            parameter
        ) in model.language_model.parameters():  # as small as they are made, or rounding would be all there is
            parameter.mul_(0.25 if parameter.ndim > 1 else 1.0)
    return model


def micro_batches(case: str, model: Any) -> list[GenerationBatch | ImageTextBatch]:
    """This process's micro-batches of a whole run; the processes together have the same samples, however many."""
    parts, share = CASES[case].get("accumulate", 1), 2 * SHARE // world_size()
    batches = []
    for step in range(STEPS):
        for part in range(parts):
            seed = step * parts + part
            if CASES[case]["family"] is None:
                batch: Any = image_text_batch(2 * SHARE, seed=seed)
                batch = dataclasses.replace(batch, pixel_values=batch.pixel_values.double())
            else:
                batch = generation_batch(model, 2 * SHARE, seed=seed)
            batches.append(_rows(batch, rank() * share, share))
    return batches


def _rows(batch: Any, first: int, size: int) -> Any:
    """Samples of a batch of either stage."""
    if isinstance(batch, ImageTextBatch):
        return rows_of(batch, first, size)
    rows = slice(first, first + size)
    labels = batch.labels[rows]
    return dataclasses.replace(
        batch,
        **{name: getattr(batch, name)[rows] for name in ("pixel_values", "image_ids", "input_ids", "attention_mask")},
        labels=labels,
        target_positions=(labels.flatten() != -100).nonzero().flatten(),
        sample_ids=batch.sample_ids[rows],
        references=batch.references[rows],
    )


class _Batches:
    """Micro-batches from a step on; its length is that of the whole run."""

    def __init__(self, batches: list[Any], first: int) -> None:
        self.batches, self.first = batches, first

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches[self.first :])

    def __len__(self) -> int:
        return len(self.batches)


class Data(lightning.LightningDataModule):
    """The batches of a case; goes on where a checkpoint was written."""

    def __init__(self, batches: list[Any], held_out: list[Any]) -> None:
        super().__init__()
        self.batches, self.held_out, self.first = batches, held_out, 0

    def train_dataloader(self) -> _Batches:
        return _Batches(self.batches, self.first)

    def val_dataloader(self) -> Any:
        return _Batches(self.held_out, 0) if self.held_out else []

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        return {"first": self.trainer.global_step * self.trainer.accumulate_grad_batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first = state_dict["first"]


class ScaledObjective(RepresentationObjective):
    """Stage 1 with a trained scalar of the objective's own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def contrastive_logits(self, model: Any, similarity: Tensor) -> Tensor:
        return super().contrastive_logits(model, similarity) * self.scale


class Steps(TrainingModule):
    """The objective of either stage, its losses kept; in validation stage 1 is scored, stage 2 generates."""

    model: Any
    stage = "test"

    def __init__(self, model: Any, **optim: Any) -> None:
        numbers: dict[str, Any] = {"lr": 1e-3, "min_lr": 1e-3, "warmup_lr": 1e-3, "warmup_steps": 0, "steps": STEPS}
        optimizer = OptimizerConfig(**numbers, betas=(0.9, 0.98), weight_decay=0.05, **optim)
        objective: Any = ScaledObjective() if model.matches_texts else GenerationObjective()
        collator: Any = SimpleNamespace(batch_type=objective.batch_type)
        super().__init__(model, objective, optimizer, collator, seed=0)
        self.losses: list[float] = []
        self.gradients: dict[str, Tensor] = {}
        """Those of the first step, clipped."""
        self.generated_ids: list[Tensor] = []
        self.end = -1
        self.evaluation = RepresentationEvaluation()
        self.scores: dict[str, float] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        output = self.objective(self.model, batch, self.shared_generator())
        self.losses.append(mean_over_processes(output.total).item())
        return output.total

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        super().configure_gradient_clipping(optimizer)
        if self.global_step == 0:
            gradients = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
            self.gradients = gather_whole(gradients)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if isinstance(batch, ImageTextBatch):
            self.evaluation.add(self.model, batch)
        else:
            self.generated_ids += [generated(self.model, batch, self.end, beams) for beams in BEAMS]

    def on_validation_epoch_end(self) -> None:
        if len(self.evaluation):
            self.scores = self.evaluation.compute(self.model, self.device, batch_size=2 + rank())


def generated(model: Any, batch: GenerationBatch, end: int, beams: int = 1) -> Tensor:
    """Ids that a model generates after the first two tokens of each row, until the token `end`."""
    options = GenerationOptions(num_beams=beams, max_new_tokens=10, repetition_penalty=2.0)
    tokens = {"eos_token_id": end, "pad_token_id": 0}
    ids: Tensor = model.generate(
        batch.pixel_values, batch.input_ids[:, :2], batch.attention_mask[:, :2], options, **tokens
    )
    return ids


class _Save(Callback):
    """Writes a checkpoint once, in the middle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == SAVED_AT and not self.path.exists():
            trainer.save_checkpoint(self.path)


def make_trainer(accumulate: int = 1, sharded: bool = True, **options: Any) -> lightning.Trainer:
    """A trainer on the CPU; with several processes it shards the model, unless `sharded` is False."""
    options.setdefault("strategy", "auto" if world_size() == 1 else ShardedStrategy() if sharded else "ddp")
    return lightning.Trainer(
        accelerator="cpu",
        devices=world_size(),
        max_steps=STEPS,
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def run(case: str, folder: Path, resume: Path | None = None, sharded: bool = True) -> dict[str, Any]:
    """Train a case, the model sharded if there are several processes, leaving `<case>.ckpt`; what came of it."""
    model = make_model(case)
    before, blocks = frozen_tensors(model), blocks_to_shard(model)
    module, accumulate = Steps(model, **CASES[case].get("optim", {})), CASES[case].get("accumulate", 1)
    batches = micro_batches(case, model)
    data = Data(batches, batches[:1] if CASES[case]["family"] is None else [])
    options = {"precision": CASES[case].get("precision"), "callbacks": [_Save(folder / f"{case}.ckpt")]}
    trainer = make_trainer(accumulate, sharded, val_check_interval=STEPS, **options)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    after = frozen_tensors(model)
    return {
        "losses": module.losses,
        "gradients": module.gradients,
        "scores": module.scores,
        "weights": module.trained_weights(),
        "moved": [name for name in before if not torch.equal(before[name], after[name])],
        "rates": [group["lr"] for group in trainer.optimizers[0].param_groups],
        "sharded": [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)],
        "block_bytes": [_bytes(blocks, share=share) for share in (False, True)],
    }


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the frozen parameters, whole, and of the buffers."""
    frozen = [*((n, p) for n, p in model.named_parameters() if not p.requires_grad), *model.named_buffers()]
    return {name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone() for name, t in frozen}


def _bytes(blocks: list[nn.Module], share: bool = False) -> int:
    """Bytes of the parameters of blocks, without adapters: whole, or this process's share."""
    parameters = [p for block in blocks for name, p in block.named_parameters() if not is_adapter(name)]
    held = [p.to_local() if share and isinstance(p, DTensor) else p for p in parameters]
    return sum(p.numel() * p.element_size() for p in held)


def generations(case: str) -> dict[str, list[Tensor]]:
    """What each of two processes generates from its own text, together with the other and alone; one ends early."""
    model = make_model(case).eval()
    texts, end = next(texts_and_end for seed in range(50) if (texts_and_end := _unequal_texts(model, seed)))
    alone = [generated(model, texts[rank()], end, beams) for beams in BEAMS]
    module = Steps(model)
    module.end = end
    make_trainer(limit_val_batches=1).validate(module, datamodule=Data([], [texts[rank()]]), verbose=False)
    return {"alone": alone, "together": module.generated_ids}


def _unequal_texts(model: Any, seed: int) -> tuple[list[GenerationBatch], int] | None:
    """Two texts and a token that is generated early for the first only, if there is one."""
    batch = generation_batch(model, 2, seed)
    texts = [_rows(batch, row, 1) for row in range(2)]
    (greedy, beams), others = ([generated(model, text, -1, beams)[0].tolist() for beams in BEAMS] for text in texts)
    early = [token for token in greedy[2:7] if token in beams[2:7] and token not in others[0] + others[1]]
    return (texts, early[0]) if early else None


def memory() -> dict[str, int]:
    """Bytes of all tensors that this process made: unsharded, while the last block first runs, after training."""
    sizes = {"before": _live_bytes()}
    model = generative_model("opt", architecture=_LARGE)
    blocks = blocks_to_shard(model)
    sizes["whole"] = _live_bytes()

    def measure(*_: Any) -> None:
        if "inside" not in sizes:
            sizes["inside"] = _live_bytes()

    blocks[-1].fc2.register_forward_hook(measure)  # type: ignore[union-attr]
    batch = _rows(generation_batch(model, 2), rank(), 1)
    module = Steps(model)
    make_trainer(limit_val_batches=0).fit(module, datamodule=Data([batch], []))
    sizes["after"] = _live_bytes()
    return {name: value - sizes["before"] for name, value in sizes.items()} | {"blocks": _bytes(blocks)}


def _live_bytes() -> int:
    gc.collect()
    storages = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = [thing for thing in gc.get_objects() if isinstance(thing, Tensor)]
    for tensor in tensors:
        storage = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def refusals() -> dict[str, str]:
    """The messages about runs that cannot be sharded."""
    messages = {}
    for name in ("weights", "batches"):
        model = make_model("opt")
        batches = micro_batches("opt", model)
        if name == "weights" and rank() == 1:
            model.ln_vision.weight.data[0] += 1e-6
        held_out = batches[: 1 + rank()] if name == "batches" else []
        try:
            make_trainer(val_check_interval=4).fit(Steps(model), datamodule=Data(batches, held_out))
        except Blip2TrainError as error:
            messages[name] = str(error)
    return messages


def work(folder: Path, written_by_one: Path) -> dict[str, Any]:
    """Everything that the tests ask of one of two processes; to Lightning they look started by torchrun."""
    ranks = {"WORLD_SIZE": str(world_size()), "RANK": str(rank()), "LOCAL_RANK": str(rank())}
    os.environ.update(ranks, TORCHELASTIC_RUN_ID="test")
    resumed = {"sharded": folder / f"{RESUMED}.ckpt", "whole": written_by_one}
    return {
        "runs": {case: run(case, folder) for case in CASES},
        "resumed": {name: run(RESUMED, folder, checkpoint) for name, checkpoint in resumed.items()},
        "unsharded": {case: run(case, folder, sharded=False) for case in IN_16_BITS},
        "generations": {case: generations(case) for case in GENERATING},
        "memory": memory(),
        "refusals": refusals(),
    }
