"""What a person sees while a run goes on: each loss beside its chance level, samples per second, time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from rich.console import RenderableType
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from blip2_train.evaluation.report.logged_scores import MATCHING
from blip2_train.system.live_bar import LiveBar, packed
from blip2_train.system.screen import LINE_EVERY, make_console
from blip2_train.system.tables import rate
from blip2_train.training.module import TrainingModule

_ASLEEP = 5.0
"""ITM accuracy on matches in per cent, below which matching has not begun to learn: docs/itm-stays-at-0.63.md."""
_NOTED_PARTS = 100
"""Lines about steps that the log of a run has."""
_NOTED_SECONDS = 600.0
"""Longest time between two of them."""


class _LossBar(LiveBar):
    """A bar, and below it each loss, in as many lines as the terminal is narrow."""

    losses: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the losses."""
        yield self.make_tasks_table(self.tasks)
        if self.losses:
            yield Text("\n".join(packed(self.losses, self.console.width)), no_wrap=True)


class LossProgress(ProgressBar):
    """A progress bar on a terminal; a line every `line_every` seconds in a log file. First process only.

    Whatever the output is, `note` gets a line for every hundredth of a run, at the latest after ten minutes, and for
    each validation and each checkpoint.

    Args:
        global_batch_size: Samples per optimiser step.
        chance: Chance level of each logged loss, nats.
        line_every: Seconds between lines where the output is no terminal.
    """

    def __init__(self, global_batch_size: int, chance: dict[str, float], line_every: float = LINE_EVERY) -> None:
        super().__init__()
        self.global_batch_size, self.chance, self.line_every = global_batch_size, chance, line_every
        self.note: Callable[[str], None] = lambda text: None
        """Takes lines for the log of the run."""
        self.console = make_console()
        self.samples_per_second = 0.0
        self._bar: _LossBar | None = None
        self._task: Any = None
        self._enabled = True
        self._mark = (0.0, 0)
        self._trained_seconds, self._trained_steps = 0.0, 0
        self._last_line = 0.0
        self._last_note = time.perf_counter()

    def disable(self) -> None:
        """Silence this process (Lightning calls it on all but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Undo `disable`."""
        self._enabled = True

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Find out whether this process reports."""
        super().setup(trainer, pl_module, stage)
        if not trainer.is_global_zero:
            self.disable()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar at the step the run starts from."""
        self._mark = (time.perf_counter(), trainer.global_step)
        if self._enabled and self.console.is_terminal:
            columns = (
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(bar_width=20),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = _LossBar(*columns, console=self.console, refresh_per_second=2)
            self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)
            self._bar.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; show it when it is time."""
        now, step = time.perf_counter(), trainer.global_step
        if step == self._mark[1]:
            return
        self._trained_seconds += now - self._mark[0]
        self._trained_steps += step - self._mark[1]
        self._mark = (now, step)
        self.samples_per_second = self._trained_steps * self.global_batch_size / self._trained_seconds
        assert isinstance(pl_module, TrainingModule)
        if self._bar is not None:
            self._bar.losses = self._losses(step, pl_module)
            self._bar.update(self._task, completed=step)
        elif self._enabled and now - self._last_line > self.line_every:
            self._last_line = now
            self.console.print(self._line(step, trainer.max_steps, pl_module), highlight=False, soft_wrap=True)
        noted = step % max(1, trainer.max_steps // _NOTED_PARTS) == 0 or step == trainer.max_steps
        if self._enabled and (noted or now - self._last_note > _NOTED_SECONDS):
            self._last_note = now
            self.note(self._line(step, trainer.max_steps, pl_module))

    def saved(self, path: Path, step: int) -> None:
        """Note that a checkpoint is on disk."""
        if self._enabled:
            self.note(f"step {step}: {path.name} is written")

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Nothing to show; the clock of training stops."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the held-out scores, and start the clock of training again."""
        self._mark = (time.perf_counter(), trainer.global_step)
        validations = getattr(pl_module, "validations", None)
        if self._enabled and validations:
            scores = validations[-1]
            chance = {**self.chance, **({"loss_itc": math.log(scores["pairs"])} if "pairs" in scores else {})}
            parts = [f"held-out, step {trainer.global_step}", *_beside_chance(scores, chance)]
            if (matches := scores.get("itm_accuracy_match")) is not None:
                label, normal = MATCHING["itm_accuracy_match"].label, " (normal at first)" * (matches < _ASLEEP)
                parts.append(f"{label} {matches:.0f} %{normal}")
            if "cider" in scores:
                parts.append(f"CIDEr {scores['cider']:.3f}")
            for label, key in (("image→text", "image_to_text"), ("text→image", "text_to_image")):
                if f"{key}_r1" in scores:
                    parts.append(f"{label} R@1 {scores[f'{key}_r1']:.1f} R@10 {scores[f'{key}_r10']:.1f}")
            self.note("  ".join(parts))
            console = self._bar.console if self._bar is not None else self.console
            lines = packed(parts, console.width) if console.is_terminal else ["  ".join(parts)]
            shown = Text("\n".join(lines))
            shown.stylize("bold", 0, len(parts[0]))
            console.print(shown, soft_wrap=True)
            for shown in getattr(pl_module, "shown_captions", [])[:3]:
                line = Text(f"  says {shown.caption!r}, reference: {shown.references[0]!r}", style="dim")
                console.print(line, soft_wrap=True)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the message that follows can be read."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, step: int, steps: int, module: TrainingModule) -> str:
        left = (steps - step) * self._trained_seconds / self._trained_steps
        losses = "  ".join(self._losses(step, module))
        return f"step {step}/{steps}  {losses}  {int(left) // 60}:{int(left) % 60:02d} left"

    def _losses(self, step: int, module: TrainingModule) -> list[str]:
        """The values logged last, with their step where it is an earlier one, and the speed."""
        earlier = [f"(of step {module.latest_step})"] if module.latest and module.latest_step != step else []
        return [*_beside_chance(module.latest, self.chance), *earlier, f"{rate(self.samples_per_second)} samples/s"]


def _beside_chance(values: dict[str, float], chance: dict[str, float]) -> list[str]:
    return [
        f"{name.removeprefix('loss_').upper()} {values[name]:.3f} (chance {level:.2f})"
        for name, level in chance.items()
        if name in values
    ]
