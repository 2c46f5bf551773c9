"""What a launcher tells a process of its place in a run, before the processes have met."""

from __future__ import annotations

import os


def launched_as_first_process() -> bool:
    """Whether this is the first process of a run, by what its launcher says; known before the processes have met."""
    if "RANK" in os.environ:  # torchrun
        return os.environ["RANK"] == "0"
    if "LOCAL_RANK" in os.environ:  # a process that Lightning starts itself
        return (os.environ.get("NODE_RANK", "0"), os.environ["LOCAL_RANK"]) == ("0", "0")
    return os.environ.get("SLURM_PROCID", "0") == "0"
