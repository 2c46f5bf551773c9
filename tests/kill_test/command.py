"""`python scripts/kill_test.py [option=value …]`: kill a run again and again, and show that nothing is lost."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace

from omegaconf import DictConfig

from blip2_train.cli.terminal import run_command
from blip2_train.config.compose import compose
from blip2_train.config.run_data import make_data
from blip2_train.data.stream.batch_sampler import BatchShape
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo
from kill_test.command_kills import run_commands
from kill_test.moments import draw_moments
from kill_test.options import SYNTAX, KillOptions, read_options
from kill_test.parts import Trial, run_elastic, run_killed, run_settings, run_whole
from kill_test.report import show, write_record

ABOUT = f"""\
Train a small run, then the same one killed with SIGKILL again and again (anywhere, while a checkpoint is written,
where an epoch ends, while it starts) and continued each time; compare weights, losses and sample ids bit for bit. Then
the same with another number of processes at each continuation: every sample of each epoch exactly once. Then kill
the commands that export, convert, filter captions (CapFilt), evaluate and store features: after each kill no file is
half under its final name, and the command, repeated, leaves what it leaves where nobody kills it.
Ends with 1 if anything differs. Linux only.

usage: python scripts/kill_test.py [option=value …] [key=value …]

{SYNTAX}"""


def main(arguments: list[str]) -> None:
    """Do both parts, print the results, and end with 1 if it is not what it has to be."""
    if {"--help", "-h"} & set(arguments):
        echo(ABOUT)
        return
    if not sys.platform.startswith("linux"):
        raise ConfigError("the kill test finds the processes of a run in /proc, which only Linux has")
    options, started = read_options(arguments), time.monotonic()
    trial = _plan(options)
    config = trial.config
    echo(
        f"{config.experiment}: {config.steps} steps of {config.global_batch_size} out of {trial.epoch} samples, a "
        f"checkpoint every {config.checkpoint_every} steps; output: {options.output}\n"
        f"whole: {options.processes} processes, not killed",
        flush=True,
    )
    whole = run_whole(trial)
    parts = [run_killed(trial, whole)]
    if options.other_processes:
        parts.append(run_elastic(trial, whole))
    if options.command_kills:
        parts.append(run_commands(trial, whole))
    for part in parts:
        show(part)
    record = write_record(options.output, parts, time.monotonic() - started)
    failed = any(part.failed for part in parts)
    echo(f"{'DIFFERENT' if failed else 'all as it has to be'}, {time.monotonic() - started:.0f} s; {record}")
    if failed:
        sys.exit(1)


def _plan(options: KillOptions) -> Trial:
    """Check every setting before the first run starts, write the data, and draw the moments.

    Raises:
        ConfigError: if something cannot be used.
    """
    config = compose(run_settings(options, "whole", options.processes))
    for processes in (options.processes, *options.other_processes):
        BatchShape(global_batch_size=config.global_batch_size, world_size=processes, accumulate=config.accumulate)
    epoch = _samples_per_epoch(compose(run_settings(replace(options, workers=0), "whole", 1)))
    ends = [math.ceil(n * epoch / config.global_batch_size) for n in range(1, config.steps + 1)]
    inside = [end for end in ends if end <= config.steps]
    moments = draw_moments(options.kills, options.kill_seed, config.steps, config.checkpoint_every, inside)
    return Trial(options=options, config=config, epoch=epoch, moments=moments)


def _samples_per_epoch(config: DictConfig) -> int:
    data = make_data(config, access="random")
    data.prepare_data()
    data.setup()
    if len(data.sources) != 1:
        raise ConfigError(f"the kill test counts the epochs of one data source, here are {len(data.sources)}")
    return len(data.sources[0])


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
