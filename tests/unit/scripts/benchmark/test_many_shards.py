"""The benchmark of many shards and the watching of a command, without looking at a time."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from benchmark.command import main
from benchmark.shards import requests
from benchmark.watching import Look, growth_table, slope, watched
from rich.console import Console

from blip2_train.cli.terminal import run_command


@pytest.mark.slow
def test_json_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "SIZES", (20_000,))
    monkeypatch.setattr(requests, "READERS", (1, 2))
    monkeypatch.setattr(requests, "_WINDOWS", 1)
    target = tmp_path / "figures.json"
    main(["part=shards", "shards=90", "random=80", "turns=1", f"json={target}"])
    record = json.loads(target.read_text(encoding="utf-8"))
    sent = record["opening"]["bytes_sent"]
    assert sent["list"] < 2000 < sent["each"] and len(record["opening"]["busy"]["each"]) == 1
    assert 0 < record["open_files"]["descriptors"] <= 64 and record["open_files"]["mappings"] < 20
    one, two = record["requests"]
    assert one["samples_per_request"] > two["samples_per_request"] > 50
    assert 1 <= one["bytes_fetched_per_byte"] < two["bytes_fetched_per_byte"] < 2.5
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("opening 90 shards again", "random order", "requests to remote storage"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["part=shards", "shards=0"], "shards must be at least 1"),
        (["part=shards", "shards=many"], "a whole number"),
        (["part=shards", "shards=5", "random=6"], "random=6 is more than there are shards (5)"),
        (["part=shards", "experiment=demo_stage1"], "it measures no recipe"),
        (["part=shards", "json=/no/such/folder/x.json"], "no folder"),
        (["part=watch"], "needs the command that is watched"),
        (["part=watch", "os"], "needs the command that is watched"),
        (["part=watch", "part=loader", "train"], "write part=loader or part=shards or part=watch or part=comparisons"),
    ],
)
def test_wrong_options_end_in_one_line(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error.partition("error: ")[2] and reason in error


def test_slopes_are_those_of_the_last_third() -> None:
    looks = [Look(seconds, 0, 0, 0) for seconds in range(30)]
    assert slope(looks, [*range(90, 110), *[110] * 10]) == pytest.approx(0)
    assert slope(looks, [*[0] * 20, *range(0, 30, 3)]) == pytest.approx(3)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_command_and_what_it_starts_are_watched_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.watching._PAUSE", 0.01)
    code, looks = watched(["sh", "-c", "sleep 1 & exec 7</dev/null; wait; exit 3"])
    assert code == 3 and len(looks) == 2
    seen = [look for looks_of_one in looks.values() for look in looks_of_one]
    assert all(look.private > 0 and look.mappings > 2 for look in seen)
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(growth_table(looks))
    printed = console.export_text()
    assert "main" in printed and "child" in printed
