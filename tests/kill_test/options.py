"""The settings of a kill test, taken out of a command line that otherwise holds those of its runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from blip2_train.config.key_values import split_settings
from blip2_train.errors import ConfigError

SYNTAX = """\
  kills=<n>                  SIGKILLs of each part (20)
  processes=<n>              of the run that has to end the same bit for bit (2)
  other_processes=<a,b,…>    of the second part, another number at each continuation; none = leave it out (1,2)
  command_kills=<n>          SIGKILLs of the third part: exporting, converting, filtering captions, evaluating,
                             storing features (15)
  workers=<n>                reading processes of each process (2)
  kill_seed=<n>              decides the moments (0)
  output=<folder>            new or empty (outputs/kill_test/<date and time>)
  --help                     this text

Any other setting goes to the runs (steps=200, experiment=demo_stage2_opt, checkpoint_every=10). Without any they are
stage 1 of the demo on a few emoji scenes, in 120 steps with a checkpoint every 5."""
SMALL = (
    "experiment=demo_stage1",
    "steps=120",
    "global_batch_size=8",
    "validate_every=40",
    "checkpoint_every=5",
    "log_every=1",
    "optim.warmup_steps=10",
)
SMALL_WORLD = (
    "data.prepare.train_scenes=90",  # an epoch ends inside a batch of 8
    "data.prepare.val_scenes=16",
    "data.prepare.test_scenes=8",
    "data.prepare.nocaps_scenes=8",
    "data.prepare.samples_per_shard=20",
)
_SET_HERE = {
    "resume_from": "the test decides it",
    "trainer.devices": "pass processes=",
    "data.num_workers": "pass workers=",
    "paths.run_dir": "pass output=",
    "paths.output_dir": "pass output=",
}


@dataclass(frozen=True, kw_only=True)
class KillOptions:
    """What to kill, and how often."""

    kills: int = 20
    processes: int = 2
    other_processes: tuple[int, ...] = (1, 2)
    command_kills: int = 15
    workers: int = 2
    kill_seed: int = 0
    output: Path = field(default_factory=lambda: Path("outputs/kill_test") / time.strftime("%Y-%m-%d_%H-%M-%S"))
    settings: tuple[str, ...] = ()
    """Of every run."""

    def __post_init__(self) -> None:
        for name in ("kills", "processes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("workers", "command_kills"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.other_processes and min(self.other_processes) < 1:
            raise ConfigError(f"other_processes must be 1 or more each, got {min(self.other_processes)}")
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise ConfigError(f"output={self.output} is not empty; name a new folder, or remove it")


def read_options(arguments: Sequence[str]) -> KillOptions:
    """The test's options, with the settings that belong to its runs.

    Raises:
        ConfigError: if a value cannot be used, or a setting is what the test decides.
    """
    for argument in arguments:
        key = argument.partition("=")[0]
        if key.lstrip("+~") in _SET_HERE:
            raise ConfigError(f"{key} cannot be set in a kill test: {_SET_HERE[key.lstrip('+~')]}")
    plain = ["other_processes=[]" if argument == "other_processes=none" else argument for argument in arguments]
    own, settings = split_settings(plain, KillOptions, without=("settings",))
    world = () if any(setting.startswith(("experiment=", "data=")) for setting in settings) else SMALL_WORLD
    return replace(own, settings=(*SMALL, *world, *settings))
