"""The command that evaluates: the same scores and files with two processes, and after it was killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from demo_exports import write_exports
from warm_process import WarmProcess

from blip2_train.cli.evaluate import main
from blip2_train.cli.terminal import run_command
from blip2_train.data.emoji_scenes.world import write_world

SCRIPT = str(Path(__file__).parents[2] / "scripts" / "evaluate.py")
TASKS = ("demo_caption", "demo_nocaps", "demo_vqa", "demo_retrieval")


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of an evaluation of untrained models on a world of a few scenes, without the folder of its results."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_world(folder / "data" / "emoji_scenes", train_scenes=0, val_scenes=0, test_scenes=9, nocaps_scenes=12, seed=5)
    exports = write_exports(folder / "exports")
    (folder / "exports/opt/metrics.csv").write_text("step,train/loss_lm,val/cider\n1,3.0,\n2,2.0,0.5\n")
    sizes = [f"tasks.{task}.batch_size=4" for task in TASKS] + [f"tasks.{task}.prepare=null" for task in TASKS]
    return [
        f"evaluation=[{','.join(TASKS)}]",
        f"paths.data_dir={folder / 'data'}",
        f"checkpoint={exports['opt']}",
        f"checkpoints.retrieval={exports['stage1']}",
        "tasks.demo_vqa.limit=18",
        "tasks.demo_retrieval.shortlist=5",
        "tasks.demo_caption.metrics=[bleu_4,rouge_l,cider]",  # METEOR takes longer to start than all the rest
        "device=cpu",
        *sizes,
    ]


def run(arguments: list[str], folder: Path, processes: int = 1, other: bool = False) -> dict[str, str]:
    """Contents of what an evaluation leaves, by name, without the time.

    Args:
        arguments: Its own.
        folder: Where it leaves it.
        processes: How many make it together, as torchrun would start them.
        other: See `warm_process`.
    """
    command = [SCRIPT, *arguments, f"paths.run_dir={folder}"]
    process = WarmProcess(command, processes, other)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    tables, closing = output.split("\ntask ")  # a table for each task, and the closing one
    assert "BLEU-4" in tables and "R@10" in tables and "answer type other" in tables
    assert "out-domain, CIDEr" in closing and "ITC alone, text→image, R@1 (%)" in closing and "report.html" in closing
    return results_of(folder)


def results_of(folder: Path) -> dict[str, str]:
    results = json.loads((folder / "results.json").read_text())
    del results["created"], results["crc32"]
    predictions = {task: (folder / "predictions" / f"{task}.json").read_text() for task in TASKS}
    return {"results": json.dumps(results, indent=1), **predictions}


@pytest.fixture(scope="session")
def alone(evaluated: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    folder = tmp_path_factory.mktemp("alone") / "run"
    return run(evaluated, folder, other=True), folder


def test_what_it_leaves(alone: tuple[dict[str, str], Path]) -> None:
    files, folder = alone
    results = json.loads(files["results"])["tasks"]
    assert set(results) == set(TASKS)
    for task in results.values():
        assert len(task["checkpoint_fingerprint"]) == 64 and task["data_fingerprints"] and task["versions"]["torch"]
    captions = json.loads(files["demo_caption"])
    assert len({entry["image_id"] for entry in captions}) == 9 and set(captions[0]) == {"image_id", "caption"}
    answers = json.loads(files["demo_vqa"])
    assert len({entry["question_id"] for entry in answers}) == 18 and set(answers[0]) == {"question_id", "answer"}
    assert {"cider", "in-domain/cider", "near-domain/cider", "out-domain/cider"} <= set(
        results["demo_nocaps"]["scores"]
    )
    assert results["demo_vqa"]["decoding"]["length_penalty"] == -1.0
    assert len(json.loads(files["demo_retrieval"])["image_to_text"]) == 9
    page = (folder / "report.html").read_text()
    assert page.count("Training curves") == 1 and 'aria-label="CIDEr: held-out from 0.500 to 0.500"' in page
    assert page.count("data:image/") >= 9 and "Questions about emoji scenes" in page


@pytest.mark.slow
def test_two_processes_give_the_same(evaluated: list[str], alone: tuple[dict[str, str], Path], tmp_path: Path) -> None:
    assert run(evaluated, tmp_path / "run", processes=2) == alone[0]
    written = sorted(path.name for path in (tmp_path / "run" / "predictions").glob("demo_vqa.*.jsonl"))
    assert written == ["demo_vqa.0.jsonl", "demo_vqa.1.jsonl"]
    batches = [
        json.loads(line)["batch"]
        for name in written
        for line in (tmp_path / "run" / "predictions" / name).read_text().splitlines()
    ]
    assert sorted(batches) == [0, 1, 2, 3, 4]  # each once


@pytest.mark.slow
def test_a_killed_evaluation_goes_on(evaluated: list[str], alone: tuple[dict[str, str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = WarmProcess([SCRIPT, *evaluated, f"paths.run_dir={folder}"])
    log, deadline = folder / "predictions" / "demo_vqa.0.jsonl", time.monotonic() + 200
    while not (log.is_file() and log.read_bytes().count(b"\n") >= 1):
        assert time.monotonic() < deadline, "it does nothing"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and not (folder / "results.json").exists(), "it ended before"
    kept = log.read_bytes()
    with log.open("ab") as file:
        file.write(b'{"batch": 4, "rows": [{"question_id"')  # as if it had been killed while it wrote
    assert run(evaluated, folder) == alone[0]
    assert log.read_bytes().startswith(kept)  # what was there was not predicted again
    batches = [entry["batch"] for line in log.read_text().splitlines() if (entry := parsed(line)) is not None]
    assert sorted(batches) == [0, 1, 2, 3, 4]


def parsed(line: str) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["evaluation=demo_vqa", "tasks.demo_vqa.control=blank_questions"], "was made with control 'none'"),
        (["evaluation=demo_retrieval", "checkpoints.retrieval=null"], "demo_retrieval needs an image-text model"),
        (["evaluation=demo_caption", "checkpoint=null"], "task demo_caption has no checkpoint: pass checkpoint="),
        (["evaluation=demo_captions"], "did you mean demo_caption?"),
        (["evaluation=demo_caption", "tasks.demo_caption.limt=3"], "did you mean 'tasks.demo_caption.limit'?"),
        (["evaluation=demo_caption", "tasks.demo_caption.images=/nowhere"], "image folder /nowhere does not exist"),
        (["evaluation=demo_caption", "tasks.demo_caption.metrics=[ciderr]"], "no caption metric 'ciderr'"),
        (["evaluation=demo_caption", "tasks.demo_caption.generation={num_beam: 3}"], "did you mean num_beams?"),
        (["evaluation=demo_vqa", "tasks.demo_vqa.picture_name=null"], "give picture_name"),
        (["evaluation=demo_vqa", "tasks.demo_vqa.candidates=/none.txt"], "answer list /none.txt does not exist"),
        (["evaluation=demo_caption", "checkpoint=last:demo_stage2_opt"], "no run under"),
        (["evaluation=nocaps"], "nocaps_val_4500_captions.json does not exist"),
    ],
)
def test_a_mistake_is_one_line(
    evaluated: list[str],
    alone: tuple[dict[str, str], Path],
    changes: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    folder = alone[1] if "was made" in words else tmp_path / "run"
    chosen = next((change.split("=")[1] for change in changes if change.startswith("evaluation=")), "")
    kept = [
        argument
        for argument in evaluated
        if not argument.startswith(("evaluation=", "tasks.")) or argument.startswith(f"tasks.{chosen}.")
    ]
    assert run_command(main, [*kept, *changes, f"paths.run_dir={folder}", f"paths.output_dir={tmp_path}"]) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and words in printed and "\n" not in printed


def test_captions_of_a_stage_1_model(evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written by its Q-Former; what it generated with is in the results."""
    chosen = [argument for argument in evaluated if not argument.startswith(("evaluation=", "tasks.", "checkpoint"))]
    stage1 = next(argument for argument in evaluated if argument.startswith("checkpoints.retrieval=")).partition("=")[2]
    settings = {"prepare": "null", "batch_size": "4", "metrics": "[bleu_4]", "limit": "5"}
    chosen += [f"tasks.demo_caption.{name}={value}" for name, value in settings.items()]
    main(["evaluation=demo_caption", f"checkpoint={stage1}", *chosen, f"paths.run_dir={tmp_path / 'run'}"])
    assert "BLEU-4" in capsys.readouterr().out
    written = json.loads((tmp_path / "run/predictions/demo_caption.json").read_text())
    assert len(written) == 5 and all(row["caption"] for row in written)
    results = (tmp_path / "run/results.json").read_text()
    assert '"num_beams": 3' in results and '"min_new_tokens": 9' in results
