"""The command line of a stage-1 run that takes a second: the demo recipe, shrunk, on the shards of a test."""

from __future__ import annotations

from pathlib import Path

from shard_files import WORDS

STEPS, SAVE = 9, 3
TINY = (
    "experiment=demo_stage1",
    "data=shards",
    "trainer=cpu",
    f"steps={STEPS}",
    "global_batch_size=4",
    "image_size=24",
    "max_text_length=14",
    "validate_every=9",
    f"checkpoint_every={SAVE}",
    "log_every=1",
    "optim.warmup_steps=2",
    "data.holdout=2",
    "model.vision.weights=random",
    "model.vision.overrides={patch_size: 12, embed_dim: 16, depth: 2, num_heads: 2}",
    "model.qformer.weights=random",
    "model.qformer.hidden_size=16",
    "model.qformer.num_layers=2",
    "model.qformer.num_heads=2",
    "model.qformer.intermediate_size=32",
    "model.qformer.num_queries=4",
    f"model.qformer.vocab_size={len(WORDS) + 6}",
)


def arguments(folder: Path) -> list[str]:
    """Overrides of a run whose output goes below `folder`."""
    shards, tokenizer = folder.parent / "shards", folder.parent / "tokenizer"
    return [*TINY, f"tokenizer={tokenizer}", f"data.source={shards}", f"paths.output_dir={folder}"]
