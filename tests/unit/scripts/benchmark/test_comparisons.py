"""The table of comparisons: what is held, what is written, and what happens to a part that fails."""

import json
from pathlib import Path

import pytest
import torch
from benchmark.command import main
from benchmark.comparisons import command
from benchmark.comparisons.comparison import Bound, Comparison
from benchmark.comparisons.parts import PARTS, Part
from benchmark.comparisons.retrieval import by_sorting, by_topk, compare_reranking

from blip2_train.errors import ConfigError


@pytest.mark.parametrize(
    ("bound", "ratio", "held"),
    [
        ("at most", 0.65, True), ("at most", 0.66, False), ("at least", 0.65, True), ("at least", 0.64, False),
        ("within", 0.7, True), ("within", 1.3, True), ("within", 1.4, False),
    ],
)  # fmt: skip
def test_held(bound: Bound, ratio: float, held: bool) -> None:
    assert Comparison(name="x", what="", ours="", other="", ratio=ratio, target=0.65, bound=bound).held is held


def test_table_and_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missed = Comparison(name="first", what="reading", ours="3 s", other="2 s", ratio=1.5, target=0.5)
    parts = {name: Part(module="unused", names=(name,)) for name in ("first", "second")}
    monkeypatch.setattr(command, "PARTS", parts)
    monkeypatch.setattr(command, "_measure", lambda name, path: ([missed], "") if name == "first" else ([], "broken"))
    main(["part=comparisons", f"json={tmp_path / 'x.json'}"])
    output = capsys.readouterr().out
    assert "reading" in output and "1.500" in output and "at most 0.5" in output and "second: broken" in output
    assert json.loads((tmp_path / "x.json").read_text()) == {"first": 1.5}


def test_a_process_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PARTS", {"x": Part(module="none", names=("x",))})
    measured, reason = command._measure("x", tmp_path / "x.json")
    assert measured == [] and reason == "ended with exit code 1"


def test_unknown_part() -> None:
    with pytest.raises(ConfigError, match="only=nothing: there is no such part"):
        main(["part=comparisons", "only=nothing"])


def test_every_ratio_has_one_part() -> None:
    names = [name for part in PARTS.values() for name in part.names]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_reranking_and_shortlists() -> None:
    assert compare_reranking().held
    similarity = torch.randint(0, 40, (60, 300), generator=torch.Generator().manual_seed(0)).float()
    for ours, other in zip(by_topk(similarity), by_sorting(similarity), strict=True):
        assert torch.equal(ours.indices, other.indices) and torch.equal(ours.values, other.values)
