"""A very small ablation through the ordinary commands: its files say what the runs' own files say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from ablations.command import main
from safetensors.torch import load_file

from blip2_train.data.emoji_scenes.world import write_world
from blip2_train.evaluation.run_metrics import curve, read_metrics


def launch_here(command: str, settings: Sequence[str]) -> None:
    """Runs a command in this process: it need not load its libraries again."""
    module = "train.command" if command == "train" else command
    import_module(f"blip2_train.cli.{module}").main(list(settings))


def test_a_very_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    world = tmp_path / "data/emoji_scenes"
    write_world(world, train_scenes=16, val_scenes=4, test_scenes=4, nocaps_scenes=0, seed=5)
    sizes = ["stage1_steps=2", "stage2_steps=4", "validate_every=2", "global_batch_size=4", "optim.warmup_steps=1"]
    settings = [
        *sizes,
        "data.validation_samples=4",
        "trainer=cpu",
        "data.prepare=null",
        "tasks.demo_retrieval.prepare=null",
    ]
    settings += ["attention=false", f"paths.data_dir={tmp_path / 'data'}", f"paths.output_dir={tmp_path / 'out'}"]
    main(settings, launch_here)

    folder = tmp_path / "out/ablations"
    record = json.loads((folder / "ablations.json").read_text())
    runs = folder / "seed_42"
    for arm, suffix in (("with", ""), ("without", "_without_itg")):
        scores = json.loads((runs / f"retrieval{suffix}/results.json").read_text())["tasks"]["demo_retrieval"]["scores"]
        assert {name: score["mean"] for name, score in record["itg"][arm].items()} == {
            name: scores[name] for name in record["itg"][arm]
        }
    for arm, suffix in (("with", ""), ("without", "_without_stage1")):
        results = json.loads((runs / f"stage2{suffix}/results.json").read_text())
        for name, score in record["stage1"][arm].items():
            assert score == {"mean": results[name], "values": {"42": results[name]}}
            steps, values = curve(read_metrics(runs / f"stage2{suffix}/metrics.csv"), name)
            assert record["curves"][arm][name] == {"steps": steps, "mean": values, "values": {"42": values}}
            assert steps == [2, 4] and values[-1] == results[name]
    weights = [load_file(runs / name / "export/model.safetensors") for name in ("stage1", "stage1_without_itg")]
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0]), "ITG is ablated"
    assert f"{record['stage1']['with']['val/loss_lm']['mean']:.3f}" in (folder / "ablations.md").read_text()
    assert (folder / "ablations.png").read_bytes().startswith(b"\x89PNG")
    before = (runs / "stage2/results.json").stat().st_mtime_ns
    main(settings, launch_here)
    assert (runs / "stage2/results.json").stat().st_mtime_ns == before
