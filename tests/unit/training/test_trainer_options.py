"""What of Lightning's trainer can be set, what stands in the place of the rest, and who started a run's processes."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from blip2_train.cli.train.run import trainer_options
from blip2_train.config.compose import compose
from blip2_train.errors import ConfigError
from blip2_train.training.timeout import DataParallelStrategy
from blip2_train.training.trainer_options import REPLACED, TrainerOptions

DEMO = "experiment=demo_stage1"
OWN = {"compile", "attention_kernels_off", "vision_quantization"}
"""Options that Lightning does not have."""
LOCATIONS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS")


@pytest.fixture(autouse=True)
def nobody_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LOCATIONS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # a trainer sets it, for all of the process


def build(location: Path, **options: Any) -> lightning.Trainer:
    return TrainerOptions(max_steps=3, **({"accelerator": "cpu"} | options)).build(location, [], [])


def test_every_option_of_lightning_is_taken_or_replaced() -> None:
    theirs = set(inspect.signature(lightning.Trainer.__init__).parameters) - {"self"}
    own = {field.name for field in fields(TrainerOptions)} - OWN
    assert theirs == own | (REPLACED.keys() - own), "a new Lightning has other options: say what stands in their place"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REPLACED))
def test_what_this_project_does_itself_is_refused_with_its_own_setting(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose([DEMO, f"+trainer.{name}=1"])
    follows = {"max_steps": "'steps'", "accumulate_grad_batches": "'accumulate'"}
    assert follows.get(name, REPLACED[name]) in str(refused.value) and f"'trainer.{name}'" in str(refused.value)


@pytest.mark.slow
def test_the_settings_that_replace_them_exist() -> None:
    """Each `key=…` that a text names is one of the configuration, or a group."""
    settings = {key for text in REPLACED.values() for key in re.findall(r"(?<![.>])\b([a-z_.]+)(?==)", text)}
    assert {"steps", "optim.clip_norm", "validate_every", "accumulate", "debug", "log_every"} <= settings
    values = {"trainer": "ddp_cpu", "logger": "csv", "debug": "fast", "validate_every": "null", "steps": "9"}
    for key in sorted(settings):
        compose([DEMO, "optim.warmup_steps=1", "checkpoint_every=1", "validate_every=1", f"{key}={values.get(key, 1)}"])


WRONG = {
    "trainer.strategy=ddp": "trainer.strategy is 'ddp'; several processes are trainer=ddp",
    "trainer.devices=0": "trainer.devices must be at least 1",
    "trainer.devices=many": "trainer.devices is 'many'",
    "trainer.devices=1.5": "trainer.devices is 1.5",
    "trainer.num_nodes=0": "trainer.num_nodes must be at least 1",
    "trainer.precision=bf16-true": "trainer.precision is 'bf16-true'; expected one of 32-true",
    "trainer.accelerator=tpu": "trainer.accelerator is 'tpu'; expected one of auto, cpu, gpu",
    "trainer.profiler=fast": "trainer.profiler is 'fast'",
    "trainer.overfit_batches=-1": "trainer.overfit_batches must be 0 or more",
}


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "words"), WRONG.items(), ids=WRONG.keys())
def test_values_are_typed(setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose([DEMO, setting])
    assert str(refused.value).startswith(words)


def test_a_trainer_of_lightnings_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    text = "_target_: lightning.pytorch.Trainer\nmax_time: '00:00:01:00'\n"
    (tmp_path / "trainer" / "mine.yaml").write_text(text)
    config = compose([DEMO, "trainer=mine"], tmp_path)
    with pytest.raises(ConfigError, match="takes the options of trainer=default alone"):
        trainer_options(config.trainer)


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError, match=r"accelerator=gpu, but torch finds no .* has no CUDA; pass trainer=cpu"):
        trainer_options(compose([DEMO, "trainer=gpu"]).trainer)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"devices=8, but this machine has 2 gpu devices: pass trainer\.devices=2"):
        trainer_options(compose([DEMO, "trainer=ddp", "trainer.devices=8"]).trainer)


def test_several_processes_need_a_strategy_of_this_project(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer.devices=2 .* pass trainer=ddp \(on a CPU trainer=ddp_cpu\)"):
        build(tmp_path, devices=2)


def test_two_machines_without_a_launcher_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = {"num_nodes": 2, "strategy": DataParallelStrategy()}
    with pytest.raises(ConfigError, match=r"num_nodes=2, but nothing started this process on 2 machines: .* srun"):
        build(tmp_path, **two)
    monkeypatch.setenv("NODE_RANK", "1")
    assert build(tmp_path, num_nodes=2, strategy=DataParallelStrategy()).world_size == 2


@pytest.mark.parametrize(("started", "devices"), [(2, 1), (1, 2), (4, 2)])
def test_torchrun_starts_as_many_as_the_trainer_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: int, devices: int
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": str(started), "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"torchrun started {started} process(es)?, but this trainer uses {devices}"):
        build(tmp_path, devices=devices, strategy=DataParallelStrategy())


ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "n1"}
FIRST = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
SHELLS = {
    "salloc": ALLOCATION,
    "salloc with an interactive step": ALLOCATION
    | FIRST
    | {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},
    "batch script": ALLOCATION | FIRST | {"SLURM_NTASKS_PER_NODE": "4"},
    "srun --pty bash": ALLOCATION | FIRST | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},
    "srun -n4 --pty bash": ALLOCATION
    | FIRST
    | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PTY_PORT": "40001", "SLURM_NTASKS_PER_NODE": "4"},
}


@pytest.mark.parametrize("variables", SHELLS.values(), ids=SHELLS.keys())
def test_the_variables_of_a_slurm_shell_do_not_stop_a_run_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    trainer = build(tmp_path)
    assert isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment)
    assert trainer.world_size == 1 and trainer.global_rank == 0


def test_a_task_of_srun_takes_its_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ALLOCATION | {"SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "4"}
    for name, value in (task | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}).items():
        monkeypatch.setenv(name, value)
    trainer = build(tmp_path, devices=4, strategy=DataParallelStrategy())
    assert isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment)
    assert (trainer.world_size, trainer.global_rank) == (4, 3)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    monkeypatch.setattr(SLURMEnvironment, "_validate_srun_variables", staticmethod(lambda: None))
    with pytest.raises(ConfigError, match="srun started 4 processes, but this trainer uses 1: pass trainer=ddp"):
        build(tmp_path)


def test_an_attention_kernel_is_turned_off(tmp_path: Path) -> None:
    try:
        build(tmp_path, attention_kernels_off=["cudnn"])
        assert not torch.backends.cuda.cudnn_sdp_enabled() and torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)
    with pytest.raises(ConfigError, match="'cuda' is no attention kernel"):
        compose([DEMO, "trainer.attention_kernels_off=[cudnn,cuda]"])
