"""A very small study through the ordinary commands: its table says what the runs' own files say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from studies.command import main

from blip2_train.data.emoji_scenes.world import write_world

STUDY = """\
title: Does it run?
question: Through both commands.
expected: {written: "2026-12-01", text: "It should."}
steps:
  stage1: {train: demo_stage1, settings: [steps=2, validate_every=1, checkpoint_every=2]}
  retrieval: {evaluate: demo_retrieval, of: stage1, settings: [attention=false]}
  stage2: {train: demo_stage2_opt, of: stage1, settings: [steps=2, validate_every=2]}
arms:
  recipe: {label: as it is}
  scratch: {label: without stage 1, of: {stage2: null}}
scores:
  - {step: stage1, name: val/loss_itm, label: ITM loss, better: lower, curve: true}
  - {step: retrieval, name: image_to_text_r1, label: R@1, hits_at: 1}
  - {step: stage2, name: val/cider, label: CIDEr}
seeds: [0]
"""


@pytest.mark.slow
def test_a_very_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_world(tmp_path / "data/emoji_scenes", train_scenes=16, val_scenes=4, test_scenes=4, nocaps_scenes=0, seed=5)
    (tmp_path / "small.yaml").write_text(STUDY)
    started: list[str] = []

    def launch_here(command: str, settings: Sequence[str], log: Path, threads: int) -> None:
        started.append(command)
        module = "train.command" if command == "train" else command
        import_module(f"blip2_train.cli.{module}").main(list(settings))

    sizes = ["global_batch_size=4", "optim.warmup_steps=1", "data.validation_samples=4", "trainer=cpu"]
    sizes += ["data.prepare=null", "tasks.demo_retrieval.prepare=null"]
    folders = [f"paths.data_dir={tmp_path / 'data'}", f"paths.output_dir={tmp_path / 'out'}"]
    main([str(tmp_path / "small.yaml"), *sizes, *folders], launch_here)

    assert started.count("train") == 3 and started.count("evaluate") == 1, "stage 1 and its retrieval are shared"
    record = json.loads((tmp_path / "out/studies/small/study.json").read_text())
    for arm in record["arms"].values():
        for step, run in arm["runs"]["0"].items():
            (folder,) = (tmp_path / "out/studies/runs").glob(f"*_{run['key']}")
            results = json.loads((folder / "results.json").read_text())
            scores = results["tasks"]["demo_retrieval"]["scores"] if step == "retrieval" else results
            for name, score in arm["scores"].items():
                if name.startswith(f"{step}/"):
                    assert score["values"] == {"0": scores[name.removeprefix(f"{step}/")]}
        assert arm["curves"]["stage1/val/loss_itm"]["steps"] == [1, 2]
    recipe, scratch = (record["arms"][arm]["scores"] for arm in ("recipe", "scratch"))
    hits = recipe["retrieval/image_to_text_r1"]["values"]["0"]
    assert scratch["retrieval/image_to_text_r1"] == {"mean": hits, "values": {"0": hits}, "difference": 0.0}
