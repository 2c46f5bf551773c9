"""Every examination of a set-up, as one table, and the problems in lines of their own."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from blip2_train.cli.doctor.data import open_data
from blip2_train.cli.doctor.disk import examine_disk
from blip2_train.cli.doctor.findings import SKIPPED, WARNING, Examination, Finding
from blip2_train.cli.doctor.java import examine_java
from blip2_train.cli.doctor.labels import examine_labels
from blip2_train.cli.doctor.machine import Machine, examine_devices, find_machine
from blip2_train.cli.doctor.memory import examine_memory
from blip2_train.cli.doctor.model import plan_model
from blip2_train.cli.doctor.options import DoctorOptions
from blip2_train.cli.doctor.shards import examine_shards
from blip2_train.cli.doctor.shared_memory import examine_shared_memory
from blip2_train.cli.doctor.speed import examine_speed
from blip2_train.cli.doctor.table import as_table
from blip2_train.cli.doctor.weights import examine_weights
from blip2_train.errors import Blip2TrainError
from blip2_train.system.screen import echo, make_console
from blip2_train.training.lifecycle import quiet_libraries

WIDTH = 110
"""Characters that the table may take at least."""


class NotReadyError(Blip2TrainError):
    """The run would fail."""


def examine_all(config: DictConfig, options: DoctorOptions) -> None:
    """Examine, print a table, and every problem in a line of its own.

    Raises:
        NotReadyError: if there is a problem.
    """
    quiet_libraries()
    machine = find_machine(config.trainer, options.device_memory)
    console = make_console(width=max(WIDTH, make_console().width))
    with console.status("looking at devices, data, weights, memory, disk …"):
        examinations = examine(config, machine)
    console.print(as_table(examinations), highlight=False)
    if any(one.problems for one in examinations):
        speed = [Finding(SKIPPED, "not measured: there are problems to mend first")]
    else:
        speed = examine_speed(config, machine, options.measure, lambda text: console.print(text, highlight=False))
    examinations.append(Examination("time", speed))
    console.print(as_table(examinations[-1:], header=False), highlight=False)
    problems = [f"{one.title}: {text}" for one in examinations for text in one.problems]
    warnings = sum(finding.level == WARNING for one in examinations for finding in one.findings)
    if problems:
        for problem in problems:
            echo(f"problem: {problem}", file=sys.stderr)
        raise NotReadyError(
            f"{len(problems)} problem{'s' * (len(problems) != 1)} to mend before {config.experiment} runs"
        )
    noted = f", with {warnings} warning{'s' * (warnings != 1)}" if warnings else ""
    console.print(f"{config.experiment} is ready{noted}", highlight=False)


def examine(config: DictConfig, machine: Machine) -> list[Examination]:
    """Every examination for which nothing is trained, in the order of the table."""
    opened, data_findings = open_data(config)
    model, model_findings = plan_model(config, opened.collator)
    return [
        Examination("devices", examine_devices(config, machine)),
        Examination("data", data_findings),
        Examination("shards", examine_shards(config, opened.module, machine)),
        Examination("shared memory", examine_shared_memory(config, opened.module, machine)),
        Examination("labels", examine_labels(opened.module)),
        Examination("model", model_findings),
        Examination("weights", examine_weights(config)),
        Examination("memory", examine_memory(config, model, machine)),
        Examination("disk", examine_disk(config, model)),
        Examination("Java", examine_java(config)),
    ]
