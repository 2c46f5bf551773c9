"""Stage 1 needs no trainer: the pieces in a bare loop learn a handful of pairs by heart."""

from pathlib import Path

import torch
from shard_files import write_shards, write_tokenizer
from tiny import image_text_model

from blip2_train.data.batches.collate import load_image_text_collator
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.data.sources.config import SourceConfig
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.optim.config import OptimizerConfig
from blip2_train.optim.param_groups import build_adamw, parameter_groups, set_learning_rate
from blip2_train.optim.schedule import learning_rate
from blip2_train.training.data_module import ImageTextDataModule


def test_a_bare_loop_trains_stage_1(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    collator = load_image_text_collator(tokenizer=write_tokenizer(tmp_path / "tokenizer"), max_text_length=32)
    data = ImageTextDataModule(
        sources=[SourceConfig(path=str(write_shards(tmp_path / "shards", [8])))],
        collator=collator,
        image_size=32, mean=CLIP_MEAN, std=CLIP_STD, global_batch_size=8, steps=60,
        seed=0, holdout=0, flip=0.0, num_workers=0,
    )  # fmt: skip
    data.prepare_data()
    data.setup()
    model = image_text_model(vocab_size=len(collator.tokenizer), hidden_size=32)
    numbers = OptimizerConfig(
        lr=3e-3, min_lr=0.0, warmup_lr=0.0, warmup_steps=5, steps=60, betas=(0.9, 0.98), weight_decay=0.0
    )
    optimizer = build_adamw(parameter_groups(model.named_parameters(), 2, numbers), numbers)
    objective, generator, losses = RepresentationObjective(), torch.Generator().manual_seed(0), []
    for step, batch in enumerate(data.train_dataloader()):
        set_learning_rate(optimizer, learning_rate(step, numbers))
        output = objective(model, batch, generator)
        output.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.total.item())
    assert len(losses) == 60 and sum(losses[-5:]) < 0.6 * sum(losses[:5])
