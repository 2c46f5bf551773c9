"""Whether the checkpoints and the export of a run fit where it will write them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Finding
from blip2_train.cli.overview import size_text
from blip2_train.training.disk_space import TIGHT, checkpoint_bytes, weight_bytes


def examine_disk(config: DictConfig, model: nn.Module | None) -> list[Finding]:
    """Compare what the run keeps, and what it holds while it writes, with the free space of its folder."""
    place = _existing(Path(config.paths.run_dir).expanduser().absolute())
    try:
        tempfile.TemporaryFile(dir=place).close()
        free = shutil.disk_usage(place).free
    except OSError as error:
        return [
            Finding(
                PROBLEM,
                f"{place} cannot be written to ({error.strerror or error}), so no run folder can be made there: free "
                "it, or pass paths.output_dir=<folder>",
            )
        ]
    if model is None:
        return [
            Finding(SKIPPED, f"{size_text(free)} free in {place}; the model cannot be built, so its size is unknown")
        ]
    weights, checkpoint = weight_bytes(model), checkpoint_bytes(model)
    newest, best = kept_checkpoints(config), int(config.monitor is not None)
    needed = (newest + best + 1) * checkpoint + weights
    text = (
        f"{newest} newest, {best} best and one more checkpoint while it is written, {size_text(checkpoint)} each, and "
        f"an export of {size_text(weights)} take {size_text(needed)}; {size_text(free)} are free in {place}"
    )
    fix = "free some, keep fewer (callbacks.checkpoint.keep), or pass paths.output_dir=<folder>"
    if needed > free:
        return [Finding(PROBLEM, f"{text}: {fix}")]
    return [Finding(WARNING, f"{text}, which is near: {fix}") if TIGHT * needed > free else Finding(OK, text)]


def kept_checkpoints(config: DictConfig) -> int:
    """How many of the newest checkpoints a run keeps."""
    writer = config.callbacks.get("checkpoint")
    asked = 0 if writer is None else int(writer.get("keep", 1))
    return min(asked, max(int(config.steps) // int(config.checkpoint_every), 1))


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
