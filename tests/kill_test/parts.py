"""The runs of a kill test: one that is not killed, and those that are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from blip2_train.system.screen import echo
from kill_test.comparison import differences, epoch_differences, sample_differences
from kill_test.launch import LaunchedRun
from kill_test.moments import Moment
from kill_test.options import KillOptions
from kill_test.watching import CommandKill, Kill, RunWatch, newest_checkpoint

_LOG = "{_target_: blip2_train.training.sample_log.SampleLog, folder: '${paths.run_dir}'}"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is trained, and when it is killed."""

    options: KillOptions
    config: DictConfig
    """Of the run that is not killed."""
    epoch: int
    """Samples of an epoch."""
    moments: list[Moment]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the test, done."""

    name: str
    kills: Sequence[Kill | CommandKill]
    problems: dict[str, list[str]]
    """By what was looked at; empty lists where all is as it has to be."""

    @property
    def failed(self) -> bool:
        """Whether something is not as it has to be."""
        return any(self.problems.values())


def run_settings(options: KillOptions, name: str, processes: int) -> list[str]:
    """Settings of the training command for a run of so many processes, whose folder is `name` in the output."""
    output = options.output.absolute()
    return [
        "trainer=ddp_cpu",
        quoted("paths.data_dir", output / "data"),
        *options.settings,
        f"trainer.devices={processes}",
        f"data.num_workers={options.workers}",
        f"callbacks.samples={_LOG}",
        quoted("paths.output_dir", output),
        quoted("paths.run_dir", output / name),
    ]


def run_whole(trial: Trial) -> Path:
    """The run that is not killed; its folder."""
    _launch(trial.options, "whole", trial.options.processes).wait()
    return trial.options.output / "whole"


def run_killed(trial: Trial, whole: Path) -> Part:
    """The same run, killed at every moment; everything has to be the same bit for bit."""
    kills, folder = _killed_run(trial, "killed", [trial.options.processes])
    problems = _kill_problems(trial, kills) | differences(whole, folder) | epoch_differences(folder, trial.epoch)
    return Part(name="killed", kills=kills, problems=problems)


def run_elastic(trial: Trial, whole: Path) -> Part:
    """The same run, killed at every moment and continued on another number of processes; its samples are the same."""
    kills, folder = _killed_run(trial, "elastic", trial.options.other_processes)
    problems = _kill_problems(trial, kills) | sample_differences(whole, folder) | epoch_differences(folder, trial.epoch)
    return Part(name="elastic", kills=kills, problems=problems)


def _killed_run(trial: Trial, name: str, processes: Sequence[int]) -> tuple[list[Kill], Path]:
    """Start the run, kill it at each moment and start it again, and let it end."""
    options, config, kills = trial.options, trial.config, list[Kill]()
    folder = options.output / name
    for count, moment in zip(itertools.cycle(processes), [*trial.moments, None], strict=False):
        watch = RunWatch(folder, config.checkpoint_every)
        run = _launch(options, name, count)
        try:
            kill = None if moment is None else watch.kill_at(run, moment, count)
            if kill is None:
                run.wait()
                break
        except BaseException:
            run.kill()
            raise
        kills.append(kill)
        echo(f"{name}: {_line(len(kills), kill)}", flush=True)
    return kills, folder


def _launch(options: KillOptions, name: str, processes: int) -> LaunchedRun:
    """Start a run, or go on with it if it has a checkpoint."""
    settings, folder = run_settings(options, name, processes), options.output.absolute() / name
    if newest_checkpoint(folder):
        settings.append(quoted("resume_from", folder))
    return LaunchedRun(settings, processes, options.output / f"{name}.log")


def _kill_problems(trial: Trial, kills: Sequence[Kill]) -> dict[str, list[str]]:
    """Kills that did not happen, and those that lost more than the steps since the last checkpoint."""
    requested, every = len(trial.moments), trial.config.checkpoint_every
    fewer = [f"{len(kills)} of {requested}: the run ended before; give more steps"] if len(kills) < requested else []
    late = [f"after step {kill.step} from {kill.checkpoint}" for kill in kills if kill.step - kill.checkpoint > every]
    return {"number of kills": fewer, "only steps since the last checkpoint repeated": late}


def _line(number: int, kill: Kill) -> str:
    cut = ", a checkpoint half written" if kill.cut else ""
    return (
        f"kill {number} ({kill.moment.kind}) of {kill.processes} process{'es' * (kill.processes > 1)} after step "
        f"{kill.step}{cut}; goes on from step {kill.checkpoint}"
    )


def quoted(key: str, path: Path) -> str:
    """A setting whose value is a path, whatever characters that holds."""
    escaped = str(path).replace("'", "\\'")
    return f"{key}='{escaped}'"
