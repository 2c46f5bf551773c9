"""What the kill test compares: a lost sample, a repeated one, another number are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kill_test.comparison import differences, epoch_differences, lost_or_doubled, sample_differences
from safetensors.torch import save_file

IDS = {1: ["a#0", "b#1"], 2: ["c#0", "d#0"], 3: ["e#0", "b#0"], 4: ["a#1", "c#0"], 5: ["d#0", "e#2"]}
"""Two epochs of five samples, each with the number of a caption."""
METRICS = "step,train/loss,val/loss\n1,0.5,\n2,0.25,\n2,,0.75\n"


def write_run(folder: Path, ids: dict[int, list[str]] = IDS, metrics: str = METRICS, number: float = 1.0) -> Path:
    for name in ("export", "checkpoints"):
        (folder / name).mkdir(parents=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps([step, names]) + "\n" for step, names in ids.items()))
    (folder / "metrics.csv").write_text(metrics)
    save_file({"w": torch.tensor([number, 2.0])}, folder / "export" / "model.safetensors")
    optimizer = {"state": {0: {"exp_avg": torch.tensor([number])}}, "param_groups": [{"lr": 0.1}]}
    state = {"state_dict": {"w": torch.tensor([1.0])}, "optimizer_states": [optimizer], "global_step": 5}
    torch.save({**state, "blip2_train": {}}, folder / "checkpoints" / "step_0000005.ckpt")
    return folder


def different(one: Path, other: Path) -> list[str]:
    return [name for name, problems in differences(one, other).items() if problems]


def test_equal_runs_are_equal(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other")
    assert different(one, other) == []
    assert not any(sample_differences(one, other).values()) and not any(epoch_differences(one, 5).values())


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"ids": {**IDS, 5: ["e#2", "d#0"]}}, ["sample ids, in order"]),
        ({"ids": {step: IDS[step] for step in (1, 2, 3, 4)}}, ["sample ids, in order"]),
        ({"metrics": METRICS.replace("0.25", "0.25000000001")}, ["losses and scores"]),
        ({"metrics": METRICS + "2,0.25,\n"}, ["losses and scores"]),
        ({"number": 1.0000001}, ["exported weights", "last checkpoint (weights, optimiser)"]),
    ],
)
def test_each_difference_is_reported(tmp_path: Path, change: dict, names: list[str]) -> None:
    assert different(write_run(tmp_path / "one"), write_run(tmp_path / "other", **change)) == names


def test_samples_may_be_reordered_within_a_step_only(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one")
    same = write_run(tmp_path / "same", {**IDS, 5: ["e#2", "d#0"]})
    other = write_run(tmp_path / "other", {**IDS, 4: ["a#1", "d#0"], 5: ["c#0", "e#2"]})
    assert [any(sample_differences(one, run).values()) for run in (same, other)] == [False, True]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ({**IDS, 2: ["c#0", "c#1"]}, "epoch 0: 1 doubled ['c'], 1 lost ['d']"),
        ({**IDS, 6: ["a#0", "a#0"]}, "epoch 2: 1 doubled ['a'], 0 lost []"),
        ({1: ["a#0", "b#0"], 2: ["c#0", "d#0"]}, "4 samples were met, the data has 5"),
    ],
)
def test_lost_and_doubled_samples(ids: dict[int, list[str]], words: str) -> None:
    assert words in lost_or_doubled(ids, 5) and lost_or_doubled(IDS, 5) == []
