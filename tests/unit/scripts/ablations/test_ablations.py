"""The command that ablates, with runs that are made up: what it asks for, keeps, refuses and tells."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ablations.command import main
from ablations.options import read_options
from ablations.plan import make_plan
from ablations.running import launch_child
from omegaconf import DictConfig, OmegaConf

from blip2_train.cli.terminal import run_command
from blip2_train.config.compose import compose
from blip2_train.errors import TrainingError

RETRIEVAL = ("itc/image_to_text_r1", "itc/text_to_image_r1", "image_to_text_r1", "text_to_image_r1")
EVERYTHING = [
    "stage1", "retrieval", "stage1_without_itg", "retrieval_without_itg", "stage2", "stage2_without_stage1"
]  # fmt: skip
SHORT = ("stage1_steps=60", "stage2_steps=80")


class MadeUpRuns:
    """Stands for the commands: writes what they leave, with scores that follow from name and seed of the run."""

    def __init__(self) -> None:
        self.started: list[tuple[str, list[str]]] = []

    def __call__(self, command: str, settings: Sequence[str]) -> None:
        self.started.append((Path(_value("paths.run_dir", settings)).name, list(settings)))
        folder = Path(_value("paths.run_dir", settings))
        folder.mkdir(parents=True, exist_ok=True)
        if command == "train":
            (folder / "config.yaml").write_text(OmegaConf.to_yaml(compose(settings)))
        (folder / "results.json").write_text(json.dumps(made_up(folder)))
        if folder.name.startswith("stage2"):
            end = made_up(folder)
            rows = [f"{step},{share * end['val/cider']},1,2" for step, share in ((40, 1.5), (80, 1))]
            (folder / "metrics.csv").write_text("\n".join(["step,val/cider,val/names_right,val/loss_lm", *rows]) + "\n")


def made_up(folder: Path) -> dict[str, Any]:
    seed, without = int(folder.parent.name.removeprefix("seed_")) % 10, "without" in folder.name
    if folder.name.startswith("retrieval"):
        scores = [50.0 + 10 * number + seed + (without and (number or -2)) for number in range(4)]
        return {"tasks": {"demo_retrieval": {"scores": dict(zip(RETRIEVAL, scores, strict=True)), "examples": 256}}}
    return {
        "val/cider": 0.5 if without else 2.0 + seed,
        "val/names_right": 40.0,
        "val/loss_lm": 1.5 if without else 1.0,
    }


def _value(key: str, settings: Sequence[str]) -> str:
    return next(s for s in settings if s.startswith(f"{key}=")).partition("=")[2].strip("'")


def run(*settings: str) -> list[tuple[str, list[str]]]:
    """Names and settings of the runs that were started; everything goes below the working folder."""
    runs = MadeUpRuns()
    main([*SHORT, *settings], runs)
    return runs.started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a whole ablation was run; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert names(run()) == EVERYTHING
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its runs in a working folder of one's own."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("outputs/ablations")


def names(started: list[tuple[str, list[str]]]) -> list[str]:
    return [name for name, _ in started]


def test_arms_differ_in_what_is_ablated_only(tmp_path: Path) -> None:
    runs = make_plan(read_options([*SHORT, "seeds=3", "finetune_steps=50", f"paths.output_dir={tmp_path}"])).by_seed[3]

    def different(one: str, other: str) -> set[str]:
        known = [leaves(runs[name].config) for name in (one, other)]
        assert known[0].keys() == known[1].keys()
        return {
            key for key in known[0] if str(known[0][key]).replace(f"/{one}", f"/{other}") != str(known[1][key])
        }  # fmt: skip

    assert different("stage1", "stage1_without_itg") == {"objective.itg_weight"}
    assert different("finetuning", "finetuning_without_itg") == {"objective.itg_weight", "init_from"}
    assert different("retrieval", "retrieval_without_itg") == {"checkpoint"}
    assert different("stage2", "stage2_without_stage1") == {"init_from"}
    assert runs["retrieval"].config.checkpoint == str(tmp_path / "ablations/seed_3/finetuning/export")
    assert runs["stage2"].config.init_from == str(tmp_path / "ablations/seed_3/stage1/export")
    assert (runs["stage2"].config.validate_every, runs["stage2"].config.seed) == (10, 3)


def leaves(config: DictConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}".lstrip("."))
        else:
            flat[path] = node

    walk(OmegaConf.to_container(config), "")
    return flat


def test_tables_tell_what_came_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run("seeds=0,2", "paths.output_dir='.'")
    record = json.loads((tmp_path / "ablations/ablations.json").read_text())
    assert record["settings"] == {
        "seeds": [0, 2], "stage1_steps": 60, "stage2_steps": 80, "validate_every": 10, "finetune_steps": 0
    }  # fmt: skip
    assert record["itg"]["with"]["itc/image_to_text_r1"] == {"mean": 51.0, "values": {"0": 50.0, "2": 52.0}}
    assert record["curves"]["with"]["val/cider"] == {
        "steps": [40, 80], "mean": [4.5, 3.0], "values": {"0": [3.0, 2.0], "2": [6.0, 4.0]}
    }  # fmt: skip
    assert record["versions"]["torch"] and len(record["runs"]) == 12
    text = (tmp_path / "ablations/ablations.md").read_text()
    lines = text.splitlines()
    assert (
        "| ITC + ITM + ITG | 51.0 (50.0, 52.0) | 61.0 (60.0, 62.0) | 71.0 (70.0, 72.0) | 81.0 (80.0, 82.0) |" in lines
    )
    assert "| difference | +2.0 | −1.0 | −2.0 | −3.0 |" in lines, "also where it disagrees"
    assert "Here 1 of 4 scores are better with it." in text and "may differ by 7.9 points by chance" in text
    assert "| stage 1 | 3.000 (2.000, 4.000) | 40.0 (40.0, 40.0) | 1.000 (1.000, 1.000) |" in lines
    assert "| difference | +2.500 | +0.0 | −0.500 |" in lines
    assert "Here 2 of 3 scores are better with it. Without it CIDEr is best at step 40: 0.750, and 0.500 at" in text
    assert (tmp_path / "ablations/ablations.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "Does ITG help retrieval?" in printed and "difference" in printed and "ablations.md" in printed


def test_one_seed_has_no_brackets_and_a_score_may_be_missing(finished: Path) -> None:
    (finished / "seed_42/stage2/results.json").write_text(json.dumps({"val/names_right": 40.0, "val/loss_lm": 1.0}))
    assert run() == []
    lines = (finished / "ablations.md").read_text().splitlines()
    assert "| stage 1 | — | 40.0 | 1.000 |" in lines and "| difference | — | +0.0 | −0.500 |" in lines


def test_what_is_finished_is_kept_and_what_was_stopped_goes_on(finished: Path) -> None:
    seed = finished / "seed_42"
    for name in ("stage2", "stage2_without_stage1", "retrieval"):
        (seed / name / "results.json").unlink()
    (seed / "stage2/checkpoints").mkdir()
    (seed / "stage2/checkpoints/step_0000040.ckpt").touch()
    (seed / "stage2_without_stage1/metrics.csv").write_text("of the run that was stopped")
    known = seed / "stage2/config.yaml"  # as a run leaves it that was resumed once
    known.write_text(known.read_text().replace("resume_from: null", "resume_from: somewhere"))
    started = run("seeds=42,1")
    assert names(started) == ["retrieval", "stage2", "stage2_without_stage1", *EVERYTHING], "and a seed more"
    again = dict(reversed(started))
    assert again["stage2"][-1] == f"resume_from='{seed / 'stage2'}'"
    assert not any("resume_from" in s for s in again["stage2_without_stage1"]), "it had no checkpoint"
    assert "stopped" not in (seed / "stage2_without_stage1/metrics.csv").read_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["stage2_steps=160"], "seed_42/stage2 was made with"),
        (["optim.lr=5e-4"], "seed_42/stage1 was made with optim.lr 0.001, not 0.0005; remove that folder"),
        (["tasks.demo_retrieval.limit=9"], "seed_42/retrieval was made with tasks.demo_retrieval.limit None, not 9"),
    ],
)
def test_a_finished_run_with_other_settings_is_not_replaced(
    settings: list[str], words: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused([*SHORT, *settings], capsys)


def test_a_run_older_than_what_it_starts_from_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed, arguments = finished / "seed_42", list(SHORT)
    later = (seed / "stage2/config.yaml").stat().st_mtime_ns + 10**9
    os.utime(seed / "stage1/results.json", ns=(later, later))
    assert "seed_42/retrieval is older than" in refused(arguments, capsys)
    (seed / "stage1/results.json").unlink()
    assert "seed_42/retrieval is older than" in refused(arguments, capsys)
    (seed / "retrieval/config.yaml").unlink()
    assert "seed_42/retrieval holds something that is no run" in refused(arguments, capsys)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seeds=1,x", "seeds=x: expected a whole number"),
        ("seeds=", "seeds has no value"),
        ("seeds=1,1", "seeds names 1 twice"),
        ("seeds=-1", "seeds must be 0 or more"),
        ("stage2_steps=0", "stage2_steps must be at least 1"),
        ("finetune_steps=-1", "finetune_steps must be 0 (none) or more"),
        ("optim.warmup_steps=70", "optim.warmup_steps must be between 0 and steps (60), got 70"),
        ("validate_every=90", "validate_every 90 is more than steps 80"),
        ("stage1_step=3", "did you mean 'stage1_steps'?"),
        ("seed=3", "seed cannot be set in an ablation: pass seeds="),
        ("experiment=demo_vqa", "experiment cannot be set in an ablation"),
        ("+objective.itg_weight=2", "objective.itg_weight cannot be set in an ablation"),
        ("checkpoints.retrieval=x", "checkpoints.retrieval cannot be set in an ablation"),
        ("optim.lrr=3", "did you mean 'optim.lr'?"),
        ("tasks.demo_retrieval.limt=3", "did you mean 'tasks.demo_retrieval.limit'?"),
        ("foo", "settings are given as key=value"),
        ("--list", "unknown option '--list'"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    setting: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused([*SHORT, f"paths.output_dir={tmp_path}", setting], capsys)
    assert not list(tmp_path.iterdir())


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of the error."""
    runs = MadeUpRuns()
    capsys.readouterr()
    assert run_command(lambda given: main(given, runs), arguments) == 2 and runs.started == []
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


def test_a_child_that_fails_or_leaves_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError, match=r"scripts/train.py experiment=nothing ended with status 2"):
        launch_child("train", ["experiment=nothing"])
    arguments = [*SHORT, f"paths.output_dir={tmp_path}"]
    assert run_command(lambda given: main(given, lambda *_: None), arguments) == 2
    assert "ended without" in capsys.readouterr().err
