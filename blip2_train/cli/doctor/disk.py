"""Whether the checkpoints and the export of a run fit where it will write them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Finding
from blip2_train.training.disk_space import FIX, planned_space


def examine_disk(config: DictConfig, model: nn.Module | None) -> list[Finding]:
    """Compare what the run keeps, and what it holds while it writes, with the free space of its folder."""
    folder = Path(config.paths.run_dir).expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        return [
            Finding(
                PROBLEM,
                f"{existing} cannot be written to ({error.strerror or error}), so no run folder can be made there: "
                "free it, or pass paths.output_dir=<folder>",
            )
        ]
    if model is None:
        return [Finding(SKIPPED, "the model cannot be built, so its size is unknown")]
    writer = config.callbacks.get("checkpoint")
    space = planned_space(
        folder,
        model,
        steps=config.steps,
        checkpoint_every=config.checkpoint_every,
        keep=0 if writer is None else int(writer.get("keep", 1)),
        keeps_best=config.monitor is not None,
    )
    if not space.fits:
        return [Finding(PROBLEM, f"{space.text}: {FIX}")]
    return [Finding(WARNING, f"{space.text}, which is tight: {FIX}") if space.tight else Finding(OK, space.text)]
