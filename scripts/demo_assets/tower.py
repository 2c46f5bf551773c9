"""Trains the tiny vision tower to classify what each patch shows, and to locate its middle."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from blip2_train.data.emoji_scenes.concepts import load_concepts
from blip2_train.data.emoji_scenes.scenes import GROUNDS, SCENE_SIZE
from blip2_train.models.timm_without_wandb import timm
from blip2_train.system.screen import echo
from blip2_train.system.shared_files import share_as_usual
from demo_assets.tower_data import PatchBatches

TIMM_NAME = "vit_tiny_patch16_224"
PATCH_SIZE = 12
ARCHITECTURE: dict[str, Any] = {
    "patch_size": PATCH_SIZE,
    "embed_dim": 128,
    "depth": 4,
    "num_heads": 4,
    "num_classes": 0,
}
"""Arguments that turn timm's `vit_tiny_patch16_224` into this tower (`img_size` apart)."""
SEED, BATCH_SIZE = 3, 64
PEAK_RATE, WARMUP_STEPS = 2e-3, 200
GROUND_WEIGHT = 0.2
"""Weight of a ground patch in the loss; there are more of them, and they are easy."""
POSITION_WEIGHT = 0.1
"""Weight of the column and of the row in the loss. Towers trained on real images know where things are as well, and
what reads them needs it: to count things, to know which is on the left. With 0.5 positions made a fifth of the spread
of a thing's patches, and stage 1 learnt the names more slowly."""
SHARPNESS = 10.0
"""What cosines between features and classes are multiplied by. It is so small that only features close to their class
are sure of it, so that patches of one thing look alike, as in a tower trained on much more: what it is explains three
quarters of their spread, with a plain classifier half. After stage 2, captions of two things name both far oftener."""
LAST_BLOCK_EVERY = 4
"""Steps between two losses on the last block; the second-last, which the Q-Former reads, has one in each step."""


class PatchHead(nn.Module):
    """Scores of what a patch shows, and of the column and the row of its middle."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        width, side = ARCHITECTURE["embed_dim"], SCENE_SIZE // PATCH_SIZE
        self.classes = nn.Linear(width, num_classes, bias=False)
        self.positions = nn.Linear(width, 2 * side)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(B, patches, classes)`, `(B, patches, columns)` and `(B, patches, rows)` from `(B, patches, width)`."""
        cosines = nn.functional.linear(*(nn.functional.normalize(x, dim=-1) for x in (states, self.classes.weight)))
        columns, rows = self.positions(states).chunk(2, dim=-1)
        return SHARPNESS * cosines, columns, rows


class PatchClassifier(nn.Module):
    """The tower with two throw-away heads, on the output of the second-last block and of the last."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.tower: Any = timm.create_model(TIMM_NAME, img_size=SCENE_SIZE, pretrained=False, **ARCHITECTURE)
        blocks: Any = self.tower.blocks
        for block in blocks:
            block.attn.fused_attn = False  # on a CPU the fused backward pass takes three times as long at 65 tokens
        norm = nn.LayerNorm(ARCHITECTURE["embed_dim"], elementwise_affine=False)
        self.inner_head = nn.Sequential(norm, PatchHead(num_classes))
        self.outer_head = PatchHead(num_classes)

    def forward(self, pixel_values: Tensor, last_block: bool = True) -> list[tuple[Tensor, ...]]:
        """Scores of `(B, 3, 96, 96)` images from the second-last block and from the last, as `PatchHead`'s.

        The second is left out unless `last_block`.
        """
        options = {"indices": [-2 % ARCHITECTURE["depth"]], "norm": False, "output_fmt": "NLC"}
        if not last_block:
            (states,) = self.tower.forward_intermediates(
                pixel_values, **options, stop_early=True, intermediates_only=True
            )
            return [self.inner_head(states)]
        final, (states,) = self.tower.forward_intermediates(pixel_values, **options)
        return [self.inner_head(states), self.outer_head(final[:, 1:])]


def patch_loss(scores: tuple[Tensor, ...], labels: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy over the labelled patches: what they show (weighted by class), and the place of its middle."""
    parts = [s.flatten(0, 1).float() for s in scores]
    shown, column, row = (
        nn.functional.cross_entropy(part, labels[:, i].flatten(), weight=None if i else class_weights)
        for i, part in enumerate(parts)
    )
    return shown + POSITION_WEIGHT * (column + row)


@torch.no_grad()
def patch_accuracy(model: PatchClassifier, *, batches: int, seed: int) -> dict[str, float]:
    """Shares of patches named rightly on fresh scenes without augmentation."""
    model.eval()
    data = iter(PatchBatches(batch_size=BATCH_SIZE, patch_size=PATCH_SIZE, seed=seed, augment=False))
    num_concepts = len(load_concepts())
    right = dict.fromkeys(("foreground", "foreground_last_block", "ground", "place"), 0)
    total = dict.fromkeys(right, 0)
    for _ in range(batches):
        pixels, labels = next(data)
        inner, outer = ([part.argmax(-1) for part in scores] for scores in model(pixels))
        shown = labels[:, 0]
        things, grounds = (shown >= 0) & (shown < num_concepts), shown >= num_concepts
        for name, hits, where in (
            ("foreground", inner[0] == shown, things),
            ("foreground_last_block", outer[0] == shown, things),
            ("ground", inner[0] == shown, grounds),
            ("place", (inner[1] == labels[:, 1]) & (inner[2] == labels[:, 2]), things),
        ):
            right[name] += int(hits[where].sum())
            total[name] += int(where.sum())
    model.train()
    return {f"{name}_accuracy": round(right[name] / total[name], 4) for name in right}


def make_tower(assets: Path, *, steps: int = 7000) -> dict[str, Any]:
    """Train and write `vision/model.safetensors` (fp16, timm's key names); returns the figures for the manifest."""
    torch.manual_seed(SEED)
    num_concepts = len(load_concepts())
    model = PatchClassifier(num_concepts + len(GROUNDS))
    class_weights = torch.ones(num_concepts + len(GROUNDS))
    class_weights[num_concepts:] = GROUND_WEIGHT
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        fused=True,
    )
    data = PatchBatches(batch_size=BATCH_SIZE, patch_size=PATCH_SIZE, seed=SEED, augment=True)
    loader = iter(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4))
    started = time.monotonic()
    for step in range(steps):
        rate = PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1.001 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels, labels = next(loader)
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(pixels, last_block=step % LAST_BLOCK_EVERY == 0)
        loss = torch.stack([patch_loss(s, labels, class_weights) for s in scores]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            echo(f"tower {step + 1}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
        if (step + 1) % 500 == 0:
            echo(patch_accuracy(model, batches=4, seed=SEED + 1), flush=True)
            save_tower(model, assets)
    save_tower(model, assets)
    figures = patch_accuracy(model, batches=32, seed=SEED + 1)
    return {"seed": SEED, "steps": steps, "batch_size": BATCH_SIZE, "timm_name": TIMM_NAME, **ARCHITECTURE, **figures}


def save_tower(model: PatchClassifier, assets: Path) -> None:
    """Write the tower without its heads in 16 bits."""
    folder = assets / "vision"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().contiguous() for k, v in model.tower.state_dict().items()}, folder / "model.part")
    share_as_usual(folder / "model.part")
    (folder / "model.part").replace(folder / "model.safetensors")
