"""Says, before features are stored, what that takes and what it saves."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from blip2_train.data.features.layout import FeatureLayout
from blip2_train.data.features.preparation import Amount
from blip2_train.data.stream.plan import readable_size
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo


def announce(
    layout: FeatureLayout, folder: Path, each: float, processes: int | None, drawn: int | None, amount: Amount
) -> None:
    """Print what storing takes and what it saves.

    Args:
        layout: How features are stored.
        folder: Where; it exists.
        each: Seconds that the tower takes for a crop, in one process.
        processes: That compute features; None = not known yet.
        drawn: Samples of the recipe's whole run; None = the images are evaluated.
        amount: What is to be stored.

    Raises:
        ConfigError: if the disk is too small.
    """
    free, needed = shutil.disk_usage(folder).free, amount.left * layout.stride
    echo(
        f"will take: {amount.crops:,} crops of {amount.images:,} images, {layout.patches} x {layout.width} numbers of "
        f"{layout.bits} bits: {layout.size / 1e3:,.0f} kB each, {readable_size(amount.bytes)} in all; "
        f"{readable_size(needed)} are left to write, and {readable_size(free)} are free"
    )
    several = f"{processes} processes" if processes and processes > 1 else "one process"
    echo(f"time:      about {_time(amount.left * each / (processes or 1))} in {several}, {each:.3g} s a crop")
    echo(f"saves:     {_saved(amount.crops, each, drawn)}", flush=True)
    if needed > free:
        raise ConfigError(
            f"{folder} has too little room: {readable_size(needed)} are needed and {readable_size(free)} are free; "
            "give output= on another disk, or store less (bits=8, fewer crops)"
        )


def _saved(crops: int, each: float, drawn: int | None) -> str:
    if drawn is None:
        return f"each later evaluation of these images with this tower: {_time(crops * each)} of this device"
    runs = f"the recipe's {drawn:,} samples each run the tower"
    if drawn <= crops:
        return f"{runs}; they are fewer than what is stored ({crops:,}), so that one such run saves nothing"
    spared = _time((drawn - crops) * each)
    return f"{runs}; stored once for {crops:,}: {drawn / crops:,.1f} times less work, {spared} of this device"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
