"""What the rows of the fault test have in common: tiny data, tiny models and a finished run, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import user_files
from demo_exports import write_exports
from foreign_models import save_theirs, their_model
from shard_files import write_shards, write_tokenizer
from tiny_run import arguments
from warm_process import ROOT, WarmProcess


@dataclass(frozen=True, kw_only=True)
class World:
    """Where everything lies."""

    folder: Path
    shards: Path
    """26 samples in three shards, with words of the vocabulary of `tokenizer`."""
    tokenizer: Path
    captioned: Path
    """Images with files of captions of several layouts."""
    coco: Path
    """Annotations and predictions."""
    questions: Path
    """Questions and answers."""
    stage1: Path
    """An untrained export of stage 1."""
    opt: Path
    """One with a language model."""
    theirs: Path
    """A folder of transformers' BLIP-2 with a language model."""
    run: Path
    """A finished run of stage 1, of 9 steps, with checkpoints and an export."""

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and time of each file: rows must not change any."""
        files = ((path, path.stat()) for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): (about.st_size, about.st_mtime_ns) for path, about in files}


def make_world(folder: Path) -> World:
    """Make it in a new folder."""
    write_shards(folder / "shards", [9, 4, 13])
    write_tokenizer(folder / "tokenizer")
    run = folder / "finished" / "run"
    process = WarmProcess(
        [
            str(ROOT / "scripts" / "train.py"),
            *arguments(folder / "finished"),
            f"paths.run_dir={run}",
            "data.num_workers=0",
            "callbacks.checkpoint.keep=2",
        ],
        XDG_CACHE_HOME=str(folder / "cache"),
    )
    exports = write_exports(folder / "exports")
    questions = user_files.write_questions(folder / "asked")
    user_files.write_images(questions / "images")
    world = World(
        folder=folder,
        shards=folder / "shards",
        tokenizer=folder / "tokenizer",
        captioned=user_files.write_captioned(folder / "captioned"),
        coco=user_files.write_coco(folder / "coco"),
        questions=questions,
        stage1=Path(exports["stage1"]),
        opt=Path(exports["opt"]),
        theirs=Path(save_theirs(their_model("opt"), "opt", folder / "theirs")),
        run=run,
    )
    user_files.write_images(world.coco / "images")
    printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return world
