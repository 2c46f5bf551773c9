"""What each process of a submitted run does. It sets rank and port before it imports what reads them."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from blip2_train.system.screen import echo

PREEMPTED = 128 + signal.SIGUSR1
"""Exit status of a run that is saved and shall go on, in its first process."""
_FIRST_PORT, _PORTS = 12000, 20000
"""Below those that the system gives to connections."""


def train_as_task(runs: Sequence[tuple[tuple[str, ...], Path]], config: DictConfig) -> tuple[int, str]:
    """Train one run of a sweep, or go on with it if its folder has a checkpoint, because it was queued again.

    Args:
        runs: Arguments and run folder of each run.
        config: With the number of the run, as `job`.

    Returns:
        The exit status of the run, and the file that holds what this process printed.
    """
    import submitit

    environment = submitit.JobEnvironment()
    queue_again: Any = signal.getsignal(signal.SIGUSR1)  # submitit's; training listens itself while it lasts
    if environment.cluster == "local":
        os.environ.update(as_torchrun(environment))
    arguments, folder = runs[config.job]
    status = 1
    try:
        from blip2_train.cli.terminal import run_command
        from blip2_train.cli.train.single import train_single
        from blip2_train.config.overrides import quoted

        begun = any(folder.glob("checkpoints/*.ckpt"))
        status = run_command(train_single, [*arguments, *([quoted("resume_from", folder)] if begun else [])])
        if status == PREEMPTED and callable(queue_again):
            queue_again(signal.SIGUSR1, None)  # which ends this process, or reports why the run is not queued again
    except Exception as error:
        traceback.print_exc()
        echo(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    if status == 128 + signal.SIGTERM:
        sys.exit(status)  # without a result: the scheduler may start the run again
    log = environment.paths.stderr
    return status, str(log if log.exists() else environment.paths.stdout)


def as_torchrun(environment: Any) -> dict[str, str]:
    """The variables by which torchrun gives a process its rank, for one that submitit started on this machine.

    Args:
        environment: submitit's `JobEnvironment`.
    """
    per_node = environment.num_tasks // environment.num_nodes
    return {
        "RANK": str(environment.global_rank),
        "LOCAL_RANK": str(environment.local_rank),
        "GROUP_RANK": str(environment.node),
        "WORLD_SIZE": str(environment.num_tasks),
        "LOCAL_WORLD_SIZE": str(per_node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_FIRST_PORT + int(environment.job_id) % _PORTS),  # the same in every process of the run
        "TORCHELASTIC_RUN_ID": environment.job_id,
    }
