"""Signals, in each phase of each command that takes a while."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from fault_test.desk import Desk, Finished
from fault_test.rows.days import own_captions, predicting
from fault_test.table import row

GROUP = "signals"
LONG = ("steps=80", "validate_every=80", "checkpoint_every=80")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}


def quiet(desk: Desk, finished: Finished, code: int, words: str = "") -> str:
    """Assert that a command ended by a signal as it has to."""
    output = finished.out + finished.err
    assert "Traceback" not in output, f"a traceback: {output[-700:]}"
    assert finished.code == code, f"exit code {finished.code} instead of {code}: {output[-700:]}"
    (line,) = [one for one in output.splitlines() if re.search(r"(?i)\bstopped\b", one)][-1:] or [""]
    assert re.search(words, output), f"the output lacks {words!r}: {output[-700:]}"
    return f"{finished.code}, {desk.short(line)}"


def send(process: Any, number: signal.Signals) -> None:
    """As a terminal or a scheduler does: to the whole group."""
    os.killpg(process.pid, number)


def training(desk: Desk, *more: object) -> Any:
    """A training that has begun to train."""
    process = desk.start("train", *desk.training(*LONG, *more))
    metrics = desk.run_folder() / "metrics.csv"
    desk.wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") > 2, process)
    return process


def stopped_training(number: signal.Signals, name: str) -> None:
    """A row: a training gets a signal, is saved, and goes on."""

    def action(desk: Desk) -> str:
        process = training(desk)
        send(process, number)
        message = quiet(desk, desk.ended(process), CODES[number], r"stopped at step \d+|saved")
        (saved,) = (desk.run_folder() / "checkpoints").glob("step_*.ckpt")
        step = int(saved.stem.partition("_")[2])
        desk.well(
            "train", *desk.training(*LONG, f"resume_from={desk.run_folder()}"), words=f"going on from step {step}"
        )
        return message

    row(GROUP, name)(action)


stopped_training(signal.SIGTERM, "a training is ended (SIGTERM)")
stopped_training(signal.SIGUSR1, "a training is preempted (SIGUSR1)")
stopped_training(signal.SIGINT, "Ctrl-C in a training")


@row(GROUP, "Ctrl-C twice in a training")
def twice(desk: Desk) -> str:
    process = training(desk)
    send(process, signal.SIGINT)
    time.sleep(0.05)
    send(process, signal.SIGINT)
    return quiet(desk, desk.ended(process), 130)


@row(GROUP, "Ctrl-C in a validation")
def in_validation(desk: Desk) -> str:
    hook = "callbacks.send={_target_: fault_test.callbacks.Send, hook: on_validation_batch_start, signal: 2}"
    process = desk.start("train", *desk.training("validate_every=3", "checkpoint_every=3", hook))
    return quiet(desk, desk.ended(process), 130)


def at_start(command: str, name: str, wait: float, number: signal.Signals, code: int) -> None:
    """A row: a command gets a signal while it starts, in a new interpreter."""

    def action(desk: Desk) -> str:
        arguments = {"train": desk.training, "predict": lambda: predicting(desk)}[command]()
        process = desk.start(command, *arguments, cold=True)
        time.sleep(wait)
        assert process.poll() is None, "it ended before the signal"  # type: ignore[union-attr]
        send(process, number)
        return quiet(desk, desk.ended(process), code)

    row(GROUP, name, cold=True)(action)


at_start("train", "Ctrl-C while a training loads", 1.0, signal.SIGINT, 130)
at_start("train", "Ctrl-C a little later", 2.5, signal.SIGINT, 130)
at_start("predict", "Ctrl-C while predict loads", 1.5, signal.SIGINT, 130)


@row(GROUP, "Ctrl-C while two processes of a training meet", cold=True)
def two_processes(desk: Desk) -> str:
    process = desk.start("train", *desk.training(*LONG, "trainer=ddp_cpu", "trainer.devices=2"), cold=True)
    desk.wait_for(lambda: _children(process.pid), process)  # one that Lightning starts
    time.sleep(2.0)
    send(process, signal.SIGINT)
    return quiet(desk, desk.ended(process), 130)


def _children(process: int) -> str:
    return Path(f"/proc/{process}/task/{process}/children").read_text()


def whole(path: Path) -> None:
    """Assert that an export is not there, or whole."""
    if path.exists():
        from blip2_train.checkpoints.export import read_export

        read_export(path)
    left = [p.name for p in path.parent.iterdir() if p.name.startswith((".", "~")) and "export" in p.name]
    assert not left or not path.exists(), left


@row(GROUP, "Ctrl-C while an export is written")
def in_export(desk: Desk) -> str:
    export = desk.folder / "made" / "export"
    export.parent.mkdir()
    process = desk.start("export", desk.world.run, export)
    desk.wait_for(lambda: any(export.parent.iterdir()), process)
    send(process, signal.SIGINT)
    ended = desk.ended(process)
    whole(export)
    assert ended.code in (0, 130) and "Traceback" not in ended.out + ended.err, (ended.code, ended.err[-500:])
    desk.well("export", desk.world.run, export if not export.exists() else desk.folder / "again")
    return f"{ended.code}, {'whole' if ended.code == 0 else 'nothing'} is left, and it can be repeated"


@row(GROUP, "an evaluation is ended (SIGTERM) and goes on")
def evaluation(desk: Desk) -> str:
    run = desk.folder / "evaluation"
    given = [*own_captions(desk), f"paths.run_dir={run}"]
    process = desk.start("evaluate", *given)
    desk.wait_for(lambda: run.exists() and any(run.rglob("*.jsonl")), process)
    send(process, signal.SIGTERM)
    ended = desk.ended(process)
    output = ended.out + ended.err
    assert ended.code in (0, 143, -15) and "Traceback" not in output, f"{ended.code}: {output[-700:]}"
    desk.well("evaluate", *given)
    assert (run / "results.json").exists()
    return f"{ended.code}, and it went on"


@row(GROUP, "Ctrl-C in an evaluation, which goes on")
def evaluation_by_keyboard(desk: Desk) -> str:
    run = desk.folder / "evaluation"
    given = [*own_captions(desk), f"paths.run_dir={run}"]
    process = desk.start("evaluate", *given)
    desk.wait_for(lambda: run.exists() and any(run.iterdir()), process)
    send(process, signal.SIGINT)
    message = quiet(desk, desk.ended(process), 130)
    desk.well("evaluate", *given)
    assert (run / "results.json").exists()
    return message


@row(GROUP, "Ctrl-C in a prediction")
def prediction(desk: Desk) -> str:
    output = desk.folder / "captions.jsonl"
    slow = [word if word != "2" else "200" for word in map(str, predicting(desk))]
    process = desk.start("predict", *slow, "--batch-size", "1", "--output", output)
    desk.wait_for(output.exists, process)
    send(process, signal.SIGINT)
    return quiet(desk, desk.ended(process), 130, f"the results so far are in {output}")


@row(GROUP, "Ctrl-C while shards are made, which goes on")
def making(desk: Desk) -> str:
    made = desk.folder / "made"
    given = (f"source={desk.world.captioned / 'pipes.csv'}", f"output={made}", "workers=1", "samples_per_shard=1")
    process = desk.start("make_shards", *given)
    desk.wait_for(lambda: made.exists() and any(made.iterdir()), process)
    send(process, signal.SIGINT)
    message = quiet(desk, desk.ended(process), 130, "is kept for .* and the same command goes on")
    desk.well("make_shards", *given)
    return message


@row(GROUP, "Ctrl-C in CapFilt, which goes on")
def filtering(desk: Desk) -> str:
    made = desk.folder / "made"
    given = [f"source={desk.world.shards}", f"output={made}", f"captioner={desk.world.opt}"]
    given += [
        f"scorer={desk.world.stage1}",
        "captions=2",
        "max_new_tokens=4",
        "batch_size=2",
        "device=cpu",
        "workers=1",
    ]
    process = desk.start("capfilt", *given, "duplicates=keep")
    desk.wait_for(lambda: made.exists() and any(made.iterdir()), process)
    send(process, signal.SIGINT)
    message = quiet(desk, desk.ended(process), 130, "is kept for .* and the same command goes on")
    desk.well("capfilt", *given, "duplicates=keep")
    return message
