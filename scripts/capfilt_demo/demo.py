"""Shows what CapFilt is worth on the emoji scenes: wrong captions go in, are filtered, both sets train stage 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from studies.plan import SETS_FILE, PlannedRun, planned
from studies.running import launch_child, make

from blip2_train.cli.capfilt.filtering import filter_captions, find_model
from blip2_train.config.key_values import split_settings
from blip2_train.config.overrides import quoted
from blip2_train.data.emoji_scenes.layout import WorldPaths
from blip2_train.data.emoji_scenes.world import ensure_world
from blip2_train.data.emoji_scenes.wrong_captions import CaptionFaults, find_faults, write_noisy_shards
from blip2_train.data.prepare.engine import cores
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.errors import ConfigError
from blip2_train.evaluation.pair_scoring import Score
from blip2_train.evaluation.run_metrics import read_results
from blip2_train.system.atomic_write import read_checked, write_checked
from blip2_train.system.screen import echo, make_console

ABOUT = """\
Make scenes that no model of the demo has seen, give a part of them a caption of another scene, let CapFilt choose
captions with the demo's own captioner and scorer, and train stage 1 from nothing on either set, in equal steps.
Repeated, the command keeps what is finished and goes on with what was stopped.

usage: python scripts/capfilt.py demo [key=value …]      (after run_scripts/demo.sh)

  captioner=<model> scorer=<model>   (last:demo_caption_opt, last:demo_stage1)
  scenes=<n> wrong=<share>           (2000, 0.3)
  steps=<n>                          optimiser steps of either training; 0 = none (250)
  captions= keep= score= temperature=   as for CapFilt itself (10, 2, itc, 0.5)
  output=<folder>                    (outputs/capfilt_demo)
  seed=<n> workers=<n>               of scenes and noise (2); processes that write captions (one per core)
  --help                             this text

Any other setting goes to both trainings: trainer=gpu, global_batch_size=128, optim.lr=5e-4."""
SCORES = ("val/image_to_text_r1", "val/text_to_image_r1")
NOISY, FILTERED = "noisy", "capfilt"
_HELD_OUT = 256


@dataclass(frozen=True, kw_only=True)
class DemoRequest:
    """What is shown."""

    captioner: str = "last:demo_caption_opt"
    scorer: str = "last:demo_stage1"
    output: str = "outputs/capfilt_demo"
    scenes: int = 2000
    wrong: float = 0.3
    steps: int = 250
    captions: int = 10
    keep: int = 2
    score: Score = "itc"
    temperature: float = 0.5
    """Of sampling: so small a captioner errs too often at 1."""
    seed: int = 2
    """Of scenes and noise; the demo's own world has 1."""
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.scenes < 100:
            raise ConfigError(f"scenes must be at least 100, got {self.scenes}")
        if not 0 <= self.wrong <= 1:
            raise ConfigError(f"wrong must be a share from 0 to 1, got {self.wrong}")
        if self.steps < 0:
            raise ConfigError(f"steps must be 0 (no training) or more, got {self.steps}")


def demonstrate(arguments: Sequence[str]) -> None:
    """Do all of it that is not done, and write and print what came out."""
    if {"--help", "-h"} & set(arguments):
        echo(ABOUT)
        return
    request, more = split_settings(arguments, DemoRequest)
    folder = Path(request.output).expanduser().absolute()
    sets = {name: folder / name for name in (NOISY, FILTERED)}
    world = WorldPaths(root=folder / "world")
    runs = {name: _planned(name, folder, world, request.steps, more) for name in sets}
    models = [f"{name}={find_model(name, getattr(request, name))}" for name in ("captioner", "scorer")]
    _continue(folder / "settings.json", request)
    _write_world(world, request)
    if not sets[NOISY].is_dir():
        write_noisy_shards(ShardSource(str(world.shards("train")), "scenes"), sets[NOISY], request.wrong, request.seed)
    sizes = [f"{name}={getattr(request, name)}" for name in ("captions", "keep", "score", "temperature")]
    workers = [] if request.workers is None else [f"workers={request.workers}"]
    filter_captions(
        [f"source={sets[NOISY]}", f"output={sets[FILTERED]}", *models, *sizes, *workers, "samples_per_shard=1000"]
    )
    results = {name: asdict(find_faults(ShardSource(str(sets[name]), name))) for name in sets}
    if request.steps:
        results = {name: {**results[name], **_trained(runs[name])} for name in sets}
    record = {"settings": asdict(request), "trainings": more, "sets": results}
    path = write_checked(folder / SETS_FILE, record)
    make_console().print(as_table(record))
    echo(f"scores: {path}")


def as_table(record: dict[str, Any]) -> Table:
    """What came out, a column for each set."""
    columns = [record["sets"][name] for name in (NOISY, FILTERED)]
    faults = [CaptionFaults(**{key: value for key, value in one.items() if key not in SCORES}) for one in columns]
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("", "noisy set", "after CapFilt"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    rows = {
        "captions": [f"{one.captions:,}" for one in faults],
        "that name other things than the scene shows (%)": [_percent(one.wrong, one.captions) for one in faults],
        "scenes without a right one (%)": [_percent(one.scenes_without_right, one.scenes) for one in faults],
        "wrong captions put in that are left (%)": [_percent(one.injected_left, one.injected) for one in faults],
        "right captions of the set that are left (%)": [
            _percent(one.right_left, one.scenes - one.injected) for one in faults
        ],
    }
    if all(SCORES[0] in one for one in columns):
        steps = record["settings"]["steps"]
        rows[f"stage 1, {steps:,} steps: held-out image→text, text→image R@1 (%)"] = [
            ", ".join(f"{one[score]:.1f}" for score in SCORES) for one in columns
        ]
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f}"


def _continue(path: Path, request: DemoRequest) -> None:
    """Refuse to go on with other sets than these.

    Raises:
        ConfigError: naming what is different.
    """
    requested = {name: getattr(request, name) for name in ("scenes", "wrong", "seed")}
    stored = read_checked(path, f"remove {path.parent}, or give another output") if path.is_file() else requested
    for name, value in requested.items():
        if stored[name] != value:
            raise ConfigError(
                f"{path.parent} was made with {name} {stored[name]}, now it is {value}; give another output"
            )
    write_checked(path, requested, indent=None)


def _write_world(paths: WorldPaths, request: DemoRequest) -> None:
    ensure_world(
        paths.root,
        seed=request.seed,
        train_scenes=request.scenes,
        val_scenes=_HELD_OUT,
        test_scenes=0,
        nocaps_scenes=0,
        image_folders=(),
    )


def _planned(name: str, folder: Path, world: WorldPaths, steps: int, more: Sequence[str]) -> PlannedRun:
    """The training of a stage 1 on one of the sets."""
    settings = [
        "experiment=demo_stage1",
        *([f"steps={steps}", f"validate_every={steps}"] if steps else []),
        "data.prepare=null",
        quoted("data.sources.0.path", folder / name),
        f"data.sources.0.name=stage1_{name}",
        quoted("data.validation.path", world.shards("val")),
        *more,
    ]
    return planned("train", f"stage1_{name}", settings, folder, [folder])


def _trained(run: PlannedRun) -> dict[str, float]:
    """Held-out R@1 of a run, which is made unless it was before."""
    if not run.results.is_file():
        make(run, launch_child, cores())
    results = read_results(run.results.parent)
    return {score: results[score] for score in SCORES}
