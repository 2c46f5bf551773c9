"""Who started the processes of a run: a launcher, SLURM's srun, or the run itself.

The trainer's cluster environment is a private attribute. Tried with lightning 2.6.6.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import lightning
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment

from blip2_train.errors import ConfigError

_SPECIAL_STEPS = 4294967290
"""SLURM's lowest number for steps that no srun started: interactive shell, batch script, container of the job."""


def srun_tasks(environment: Mapping[str, str] = os.environ) -> int:
    """Tasks of the srun step that this process is one of; 0 if no srun started it.

    A shell inside an allocation (`salloc`, a batch script) has SLURM's variables too, among them `SLURM_NTASKS` of the
    whole allocation, and a rank of 0: what is started there by hand is alone, whatever they contain. srun gives its
    processes a step of their own.

    Args:
        environment: Variables of the process.
    """
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID", ""))
    if "SLURM_PROCID" not in environment or not step.isdecimal() or int(step) >= _SPECIAL_STEPS:
        return 0
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
    return int(tasks) if tasks.isdecimal() else 1


def is_terminal_of_srun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started by hand in the shell of `srun --pty bash`, which has the first task's place."""
    return environment.get("SLURM_PROCID") == "0" and (
        "SLURM_PTY_PORT" in environment or environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    )


def environment_of_run(processes: int | None) -> ClusterEnvironment | None:
    """The environment that gives a run's processes their ranks, where Lightning would read a shell's SLURM variables.

    Args:
        processes: That the run uses on all machines; None = as many as there are devices.

    Returns:
        An environment without SLURM if its variables are there and srun did not start this process as one of several;
        None = Lightning finds out.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_NTASKS" not in os.environ:
        return None
    if srun_tasks() > 1 and not (processes == 1 and is_terminal_of_srun()):
        return None
    return LightningEnvironment()


def check_launch(trainer: lightning.Trainer) -> None:
    """Refuse a run whose processes would wait for others that nobody starts, or would each train alone.

    Raises:
        ConfigError: naming what was started and what is configured.
    """
    cluster = trainer._accelerator_connector.cluster_environment
    launcher, started = "", 0
    if "TORCHELASTIC_RUN_ID" in os.environ:
        launcher, started = "torchrun", int(os.environ.get("WORLD_SIZE", "1"))
    elif isinstance(cluster, SLURMEnvironment):
        launcher, started = "srun", srun_tasks()
    used = trainer.num_devices * trainer.num_nodes
    if started and started != used:
        raise ConfigError(
            f"{launcher} started {started} process{'es' * (started > 1)}, but this trainer uses {used}: pass "
            f"trainer=ddp trainer.devices=<processes per node> (and trainer.num_nodes), or start it without {launcher}"
        )
    placed = {"NODE_RANK", "GROUP_RANK", "LOCAL_RANK"} & os.environ.keys()
    if trainer.num_nodes > 1 and isinstance(cluster, LightningEnvironment) and not placed:
        raise ConfigError(
            f"trainer.num_nodes={trainer.num_nodes}, but nothing started this process on {trainer.num_nodes} machines: "
            f"start it on each with torchrun --nnodes={trainer.num_nodes} --nproc_per_node=<processes> …, or under "
            "SLURM with srun (run_scripts/slurm/train.sh)"
        )
