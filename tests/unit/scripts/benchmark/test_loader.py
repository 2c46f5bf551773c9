"""The benchmark of reading: options, tables and JSON, without looking at a time."""

import json
from pathlib import Path

import pytest
from benchmark.command import main

from blip2_train.cli.terminal import run_command

SMALL = ["part=loader", "image_size=16", "batch_size=2", "turns=1", "steps=1", "samples=5000"]


@pytest.mark.slow
def test_json_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    target = tmp_path / "figures.json"
    main([*SMALL, "sizes=40x30,24x24", "images=4", f"json={target}"])
    record = json.loads(target.read_text(encoding="utf-8"))
    assert list(record["speed"]) == ["40x30", "24x24"]
    for speed in record["speed"].values():
        assert list(speed["ways"]) == ["bare", "loader", "loader, draft", "loader, fast"]
        assert (
            speed["ways"]["bare"]["speed"]["median"] == speed["ways"]["bare"]["speed_by_processor_time"]["median"] == 1
        )
        assert all(way["images_per_second_and_core"] > 0 for way in speed["ways"].values())
    assert [step["least_share"] for step in record["waiting"]] == [0.5, 0, 0, 0]
    assert all(0 <= step["share_waiting"] <= 1 for step in record["waiting"])
    assert [start["samples_before"] for start in record["resuming"]] == [0, 4, 2500, 4994, 16500]
    assert {start["samples_read"] for start in record["resuming"]} == {2}, "nothing that was consumed is read again"
    assert record["waiting_bytes"] == (4 + 2) * 2 * 3 * 16 * 16
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("per core", "waiting", "at most 0.0 MB per process", "reading on"))


@pytest.mark.slow
def test_both_ways_of_access_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figures.json"
    main([*SMALL, "sizes=24x24", "images=16", "access=random,sequential", f"json={target}"])
    record = json.loads(target.read_text(encoding="utf-8"))
    assert list(record["access"]) == ["random", "sequential"] and "speed" not in record
    for way in record["access"].values():
        assert way["images_per_second_and_core"] > 0 and way["memory_bytes"] >= 0
        assert way["requests_per_image"] == way["first_batch"]["requests"] == 0, "the shards lie here"
    assert "per image" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("part=all", "write part=loader"),
        ("images=3", "no multiple of batch_size=2"),
        ("turns=0", "turns must be at least 1"),
        ("sizes=big", "whole numbers of pixels"),
        ("sizes=4x4", "8 pixels per side"),
        ("samples=3", "too few to resume in"),
        ("access=quick", "give random, sequential or both"),
        ("json=/no/such/folder/x.json", "no folder"),
        ("experiment=demo_stage1", "it measures no recipe"),
        ("source=/no/such/folder", "/no/such/folder"),
    ],
)
def test_wrong_options_end_in_one_line(argument: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [argument] if argument.startswith("part=") else [*SMALL, "images=4", argument]
    assert run_command(main, arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error.partition("error: ")[2]
    assert reason in error
