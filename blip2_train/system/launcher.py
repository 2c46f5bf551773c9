"""The rank that a launcher gives a process, before the processes have formed a group."""

from __future__ import annotations

import os


def launched_as_first_process() -> bool:
    """Whether the launcher started this process as the first of its run; known before a group is formed."""
    if "RANK" in os.environ:  # torchrun
        return os.environ["RANK"] == "0"
    if "LOCAL_RANK" in os.environ:  # a process that Lightning starts itself
        return (os.environ.get("NODE_RANK", "0"), os.environ["LOCAL_RANK"]) == ("0", "0")
    return os.environ.get("SLURM_PROCID", "0") == "0"
