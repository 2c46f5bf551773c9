"""Bad days: folders that cannot be written, full disks, two runs in one folder, readers that nobody feeds."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

from fault_test.desk import Desk
from fault_test.table import refused, row

GROUP = "days"
ONE_STEP = ("steps=2", "validate_every=2", "optim.warmup_steps=0")


def below_a_file(desk: Desk) -> Path:
    (desk.folder / "file").write_text("kept")
    desk.keep(desk.folder / "file")
    return desk.folder / "file" / "below"


refused(
    GROUP,
    "the output lies below a file",
    "train",
    lambda d: d.training(f"paths.output_dir={(p := below_a_file(d))}", f"paths.run_dir={p / 'run'}"),
    r"file.*(not a folder|Not a directory|is a file)",
)
refused(
    GROUP,
    "the output of an evaluation lies below a file",
    "evaluate",
    lambda d: [*own_captions(d), f"paths.run_dir={below_a_file(d)}"],
    r"file.*(not a folder|Not a directory|is a file)",
)
refused(
    GROUP,
    "predictions are to be written below a file",
    "predict",
    lambda d: [*predicting(d), "--output", below_a_file(d)],
    r"file.*(not a folder|Not a directory|is a file|folder)",
)
refused(
    GROUP,
    "shards are to be written below a file",
    "make_shards",
    lambda d: [f"source={d.world.shards}", f"output={below_a_file(d)}"],
    r"file.*(not a folder|Not a directory|is a file|folder)",
)
refused(
    GROUP,
    "a conversion is to be written below a file",
    "convert_checkpoint",
    lambda d: [d.world.opt, "--format", "huggingface", "--to", below_a_file(d)],
    r"file.*(not a folder|Not a directory|is a file|folder)",
)


def predicting(desk: Desk) -> list[object]:
    images = desk.world.questions / "images"
    return ["caption", "--model", desk.world.opt, "--device", "cpu", "--max-new-tokens", "2", images]


def own_captions(desk: Desk) -> list[object]:
    task = "tasks.own_captions"
    where = [
        f"{task}.annotations={desk.world.coco / 'annotations.json'}",
        f"{task}.images={desk.world.coco / 'images'}",
    ]
    common = ["device=cpu", "attention=false", "examples=3", f"{task}.metrics=[cider]", f"{task}.batch_size=4"]
    return ["evaluation=own_captions", f"checkpoint={desk.world.opt}", *where, *common]


def new(desk: Desk, name: str) -> Path:
    (desk.folder / name).mkdir()
    return desk.folder / name


def read_only(name: str, command: str, arguments: object) -> None:
    """A row whose output is on a file system that is mounted to be read only."""

    def action(desk: Desk) -> str:
        folder = new(desk, "place")
        given = arguments(desk, folder)  # type: ignore[operator]
        return desk.refused(
            command, *given, words=r"(?i)read-only file system|may not be written", read_only=[str(folder)]
        )

    row(GROUP, name)(action)


read_only(
    "a training's output is read only",
    "train",
    lambda d, p: d.training(f"paths.output_dir={p}", f"paths.run_dir={p / 'run'}"),
)
read_only(
    "an evaluation's output is read only", "evaluate", lambda d, p: [*own_captions(d), f"paths.run_dir={p / 'e'}"]
)
read_only("an export's folder is read only", "export", lambda d, p: [d.world.run, p / "export"])
read_only("predictions go to a read-only folder", "predict", lambda d, p: [*predicting(d), "--output", p / "x.jsonl"])
read_only(
    "shards go to a read-only folder", "make_shards", lambda d, p: [f"source={d.world.shards}", f"output={p / 'made'}"]
)


def full(name: str, command: str, arguments: object, size: int, finals: str = "") -> None:
    """A row whose output is on a file system of `size` bytes; nothing may be left whose name matches `finals`."""

    def action(desk: Desk) -> str:
        folder, listing = new(desk, "place"), desk.folder / "left.json"
        given = arguments(desk, folder)  # type: ignore[operator]
        how = {"small": {str(folder): size}, "listing": str(listing)}
        message = desk.refused(command, *given, words=r"(?i)no space left|room|disk|needs", **how)
        left = json.loads(listing.read_text())
        half = [path for path in left if finals and re.search(finals, path)]
        assert not half, f"half written: {half}"
        return message

    row(GROUP, name)(action)


full(
    "the disk fills up in a training",
    "train",
    lambda d, p: d.training(f"paths.output_dir={p}", f"paths.run_dir={p / 'run'}"),
    200_000,
    r"/step_\d+\.ckpt$|/export/",
)
full("the disk fills up while an export is written", "export", lambda d, p: [d.world.run, p / "e"], 30_000, "/e/")
full(
    "the disk fills up in a conversion",
    "convert_checkpoint",
    lambda d, p: [d.world.opt, "--format", "huggingface", "--to", p / "x"],
    300_000,
    "/x/",
)
full(
    "the disk fills up while shards are made",
    "make_shards",
    lambda d, p: [f"source={d.world.captioned / 'pipes.csv'}", f"output={p / 'made'}", "workers=1"],
    16_384,
    r"/made/(index\.json|\d+\.tar)$",
)


@row(GROUP, "nobody reads what is printed")
def broken_pipe(desk: Desk) -> str:
    process = desk.start("predict", *predicting(desk), cold=True)
    process.stdout.readline()  # type: ignore[union-attr]
    process.stdout.close()  # type: ignore[union-attr]
    error = process.stderr.read()  # type: ignore[union-attr]
    code = process.wait()  # type: ignore[union-attr]
    assert code == 0 and "Traceback" not in error and "error" not in error, (code, error[-500:])
    return f"{code}, quiet"


@row(GROUP, "a second run starts in the folder of one that runs")
def two_runs(desk: Desk) -> str:
    first = desk.start("train", *desk.training("steps=400", "validate_every=400", "checkpoint_every=400"))
    desk.wait_for(lambda: (desk.run_folder() / "metrics.csv").exists(), first)
    try:
        return desk.refused("train", *desk.training(), words=r"run_dir|resume_from|runs")
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate(timeout=60)


@row(GROUP, "a new run into a folder with results")
def finished_folder(desk: Desk) -> str:
    desk.well("train", *desk.training(*ONE_STEP))
    for path in [p for p in desk.run_folder().rglob("*") if p.is_file() and "lock" not in p.name]:
        desk.keep(path)
    return desk.refused("train", *desk.training(*ONE_STEP), words=r"resume_from=.*overwrite=true")


@row(GROUP, "three runs start in the same second")
def three_runs(desk: Desk) -> str:
    folder = desk.folder / "three"
    given = [a for a in desk.training(*ONE_STEP) if not str(a).startswith(("paths.run_dir", "paths.output_dir"))]
    while time.time() % 1 > 0.2:
        time.sleep(0.01)
    running = [desk.start("train", *given, f"paths.output_dir={folder}") for _ in range(3)]
    codes = [desk.ended(one).code for one in running]
    folders = sorted(path.parent for path in folder.glob("demo_stage1/*/metrics.csv"))
    exports = [folder for folder in folders if (folder / "export" / "manifest.json").exists()]
    assert codes == [0, 0, 0] and len(folders) == len(exports) == 3, (codes, folders, exports)
    return f"{codes}, three folders with three exports"


@row(GROUP, "a reader is killed by the system")
def killed_reader(desk: Desk) -> str:
    given = [
        a for a in desk.training("steps=500", "validate_every=500", "checkpoint_every=500") if a != "data.num_workers=0"
    ]
    process = desk.start("train", *given, "data.num_workers=2")
    desk.wait_for(lambda: (desk.run_folder() / "metrics.csv").exists(), process)
    desk.wait_for(lambda: bool(readers(process.pid)), process)
    os.kill(readers(process.pid)[0], signal.SIGKILL)
    return desk.one_line(desk.ended(process), r"reader|num_workers|memory")


def readers(pid: int) -> list[int]:
    """Readers of a training: what its fork server forked."""
    descendants, parents = [], [pid]
    for parent in parents:
        for file in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(word) for word in file.read_text().split()]
            except OSError:
                continue
            parents += children
            descendants += [child for child in children if parent != pid]
    return descendants


@row(GROUP, "a limit of 64 open files while shards are read")
def few_descriptors(desk: Desk) -> str:
    ended = desk.well("check", *desk.training(), rlimit={"RLIMIT_NOFILE": 64})
    return f"{ended.code}, read"


@row(GROUP, "an export is asked of a run that has none yet")
def no_checkpoint(desk: Desk) -> str:
    folder = new(desk, "begun")
    (folder / "config.yaml").write_text("experiment: demo_stage1\n")
    return desk.refused("export", folder, words="checkpoint")


@row(GROUP, "a finished short run is extended")
def extended(desk: Desk) -> str:
    short = ("steps=2", "validate_every=2", "checkpoint_every=100", "optim.warmup_steps=0")
    desk.well("train", *desk.training(*short))
    longer = ("steps=4", "validate_every=2", "checkpoint_every=100", "optim.warmup_steps=0")
    ended = desk.well(
        "train", *desk.training(*longer, f"resume_from={desk.run_folder()}"), words="going on from step 2"
    )
    return f"{ended.code}, went on from step 2"
