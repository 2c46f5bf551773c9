"""Kills of the commands that work on a finished run or its data: exporting, converting, filtering captions, …"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2_train.checkpoints.training_checkpoints import CHECKPOINTS
from blip2_train.errors import TrainingError
from kill_test.launch import LaunchedCommand
from kill_test.parts import Part, Trial, quoted
from kill_test.watching import CommandKill

_GLANCE = 0.002
"""Seconds between looks."""
_LATER = 0.02
"""Seconds by which a kill may follow the change of a file that it waits for."""
_TIMES = ("created", "saved_at", "crc32")
"""Fields that are never the same twice: times, and the checksum of a file that holds one."""
_GROWING = re.compile(r"\.\d+\.jsonl$")
"""Names of files to which lines are added while a command works."""
_SCRATCH = (".lock", ".log", ".html")
"""Files that hold times, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A command that is killed.

    Args:
        name: For the table.
        program: The module whose `command` it is.
        arguments: Makes them, of the path that it writes.
        goes_on: Whether it goes on in what it left; else what is whole is removed before it is repeated.
    """

    name: str
    program: str
    arguments: Callable[[Path], Sequence[object]]
    goes_on: bool

    def start(self, output: Path) -> LaunchedCommand:
        """Start it."""
        code = f"from {self.program} import command; command()"
        command = [sys.executable, "-P", "-c", code, *map(str, self.arguments(output))]
        return LaunchedCommand(command, output.parent.parent / f"{self.name}.log")


def works(trial: Trial, whole: Path) -> list[Work]:
    """What is killed, on the run that was not."""
    newest = max((whole / CHECKPOINTS).glob("step_*.ckpt"))
    data = trial.options.output.absolute() / "data"
    always = [
        Work(name="export", program="blip2_train.cli.export", arguments=lambda folder: [newest, folder], goes_on=False),
        Work(
            name="convert",
            program="blip2_train.cli.convert_checkpoint",
            arguments=lambda folder: [whole, "--format", "huggingface", "--to", folder],
            goes_on=False,
        ),
    ]
    stage = json.loads((whole / "export" / "manifest.json").read_text(encoding="utf-8"))["stage"]
    shards = sorted(data.rglob("*.tar"))
    if stage != "stage1" or not shards:
        return always
    ((most, _),) = Counter(path.parent for path in shards).most_common(1)
    task = "tasks.demo_retrieval"
    filtering = [f"source={most}", f"captioner={whole}", f"scorer={whole}", "captions=2", "device=cpu"]
    filtering += ["max_new_tokens=6", "batch_size=4", "samples_per_shard=10", "duplicates=keep", "workers=2"]
    evaluating = ["evaluation=[demo_retrieval]", f"checkpoint={whole}", f"paths.data_dir={data}", "device=cpu"]
    evaluating += [f"{task}.prepare=null", f"{task}.batch_size=2", f"{task}.shortlist=3", "attention=false"]
    storing = [*trial.options.settings, quoted("paths.data_dir", data), "crops=2", "bits=8", "images_per_shard=10"]
    storing += ["batch_size=4", "device=cpu", "workers=2"]
    return [
        *always,
        Work(
            name="capfilt",
            program="blip2_train.cli.capfilt.command",
            arguments=lambda folder: [*filtering, f"output={folder}"],
            goes_on=True,
        ),
        Work(
            name="evaluate",
            program="blip2_train.cli.evaluate",
            arguments=lambda folder: [*evaluating, f"paths.run_dir={folder}"],
            goes_on=True,
        ),
        Work(
            name="features",
            program="blip2_train.cli.features.command",
            arguments=lambda folder: [*storing, f"output={folder}"],
            goes_on=True,
        ),
    ]


def run_commands(trial: Trial, whole: Path) -> Part:
    """Kill each of the commands some times; what each leaves has to be what it leaves unkilled."""
    kills: list[CommandKill] = []
    half: list[str] = []
    different: list[str] = []
    every = works(trial, whole)
    draw = random.Random(trial.options.kill_seed)
    for index, work in enumerate(every):
        count = (trial.options.command_kills + len(every) - 1 - index) // len(every)
        if count:
            counts = _kill(work, trial.options.output.absolute() / work.name, count, draw)
            kills += counts[0]
            half += counts[1]
            different += counts[2]
    requested = trial.options.command_kills
    problems = {
        "number of kills": [] if len(kills) == requested else [f"{len(kills)} of {requested}"],
        "no file half under its final name": half,
        "what is left in the end": different,
    }
    return Part(name="commands", kills=kills, problems=problems)


def _kill(work: Work, folder: Path, count: int, draw: random.Random) -> tuple[list[CommandKill], list[str], list[str]]:
    """Kills of one command, what was half after them, and what was different in the end."""
    undisturbed, killed = folder / "whole" / "made", folder / "killed" / "made"
    undisturbed.parent.mkdir(parents=True)
    killed.parent.mkdir()
    seconds, changes = _watch_whole(work, undisturbed)
    expected = digests(undisturbed)
    kills: list[CommandKill] = []
    half: list[str] = []
    for number in range(count):
        at_file = number % 3 != 2
        if not work.goes_on or _finished(killed, expected):
            shutil.rmtree(killed, ignore_errors=True)
        kill = _kill_once(work, killed, draw, changes if at_file else 0, seconds)
        kills.append(kill)
        now = digests(killed)
        half += [f"kill {number + 1} of {work.name}: {name}" for name in _wrong(now, expected, work.goes_on)]
        print(
            f"commands: kill {number + 1} of {work.name} ({kill.moment}) after {kill.seconds:.1f} s; "
            f"{kill.whole} whole files, {kill.unfinished} unfinished",
            flush=True,
        )
    if not work.goes_on:
        shutil.rmtree(killed, ignore_errors=True)
    work.start(killed).wait()
    now = digests(killed)
    different = [f"{work.name}: {name}" for name in sorted({*now, *expected}) if now.get(name) != expected.get(name)]
    return kills, half, different


def _finished(folder: Path, expected: dict[str, str]) -> bool:
    return digests(folder) == expected


def _wrong(now: dict[str, str], expected: dict[str, str], goes_on: bool) -> list[str]:
    """Files under final names that are not what they are in the end; of what appears as a whole, also missing ones."""
    wrong = [name for name, digest in now.items() if name in expected and expected[name] != digest]
    if not goes_on and now:
        wrong += [name for name in expected if name not in now]
    return wrong


def _watch_whole(work: Work, output: Path) -> tuple[float, int]:
    """Run it to its end; the seconds, and how often its files were seen to change."""
    run, changes, state = work.start(output), 0, _state(output.parent)
    while run.status is None:
        if (now := _state(output.parent)) != state:
            state, changes = now, changes + 1
        time.sleep(_GLANCE)
    seconds = time.monotonic() - run.started
    run.wait()
    return seconds, changes


def _kill_once(work: Work, output: Path, draw: random.Random, changes: int, seconds: float) -> CommandKill:
    """Kill it at one of the changes of its files, or anywhere; begun anew where it ended before."""
    for _ in range(20):
        moment = f"change {draw.randrange(1, changes + 1)}" if changes else "anywhere"
        run, state, seen = work.start(output), _state(output.parent), 0
        at = draw.uniform(0.1, 1.0) * seconds
        while run.status is None:
            if changes:
                if (now := _state(output.parent)) != state:
                    state, seen = now, seen + 1
                if moment == f"change {seen}":
                    time.sleep(draw.random() * _LATER)
                    break
            elif time.monotonic() - run.started >= at:
                break
            time.sleep(_GLANCE)
        after = time.monotonic() - run.started
        if run.status is None:
            run.kill()
            left = [path for path in output.parent.rglob("*") if path.is_file()]
            whole = len(digests(output))
            return CommandKill(
                command=work.name, moment=moment, seconds=after, unfinished=len(left) - whole, whole=whole
            )
        run.wait()
        shutil.rmtree(output, ignore_errors=True)
        changes = max(1, changes // 2) if changes else 0
    raise TrainingError(f"{work.name} ends before it can be killed")


def _state(folder: Path) -> set[tuple[str, int]]:
    files = set()
    for parent, folders, names in os.walk(folder):  # which passes over a folder that is just being renamed
        for path in (Path(parent, name) for name in (*folders, *names)):
            try:
                files.add((str(path), path.stat().st_size))
            except OSError:  # it is just being renamed
                continue
    return files


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of the files that are finished, by their names; of results without their times."""
    hashes = {}
    for path in sorted(output.rglob("*")) if output.is_dir() else ():
        name = path.relative_to(output)
        scratch = path.suffix in _SCRATCH or any(part.startswith((".", "~")) or "tmp" in part for part in name.parts)
        if path.is_file() and not scratch and not _GROWING.search(name.name):
            hashes[str(name)] = hashlib.sha256(_without_times(path)).hexdigest()
    return hashes


def _without_times(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".json":
        return content
    try:
        values = json.loads(content)
    except ValueError:
        return content
    return json.dumps(_timeless(values)).encode()


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value
