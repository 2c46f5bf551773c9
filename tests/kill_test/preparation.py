"""`python scripts/kill_preparation.py [key=value …]`: shards of rendered scenes, made in one go and with kills."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blip2_train.cli.make_shards import read_request
from blip2_train.cli.terminal import run_command
from blip2_train.config.key_values import split_settings
from blip2_train.data.emoji_scenes.world import ensure_world
from blip2_train.data.prepare.examination import VERDICT
from blip2_train.errors import ConfigError, ShardError
from blip2_train.system.screen import echo

ABOUT = """\
Render images with captions, make shards of them in one go, measure how fast that is and what memory it takes, make
them again with kills (SIGKILL) at even distances, and see whether both are the same, byte for byte.

usage: python scripts/kill_preparation.py [key=value …]

  scenes=<n>     images (50000)
  kills=<n>      how often the second making is killed (3)
  folder=<path>  where the images are kept for the next time; they and the shards take 12 kB an image
                 (a temporary folder)
  any setting of scripts/make_shards.py: workers=2, engine=ray, samples_per_shard=500 (1000) …"""
_MAKE = "from blip2_train.cli.make_shards import command; command()"
_PARTS = 8
"""Parts of a making for each of which the highest memory is reported."""
_SECONDS_BETWEEN_LOOKS = 0.05
_LOOKS_PER_WEIGHING = 10


@dataclass(frozen=True, kw_only=True)
class KillOptions:
    """What is made, and how often it is killed."""

    scenes: int = 50_000
    kills: int = 3
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in ("scenes", "kills"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass
class _Making:
    """One run of the command that makes shards."""

    arguments: Sequence[str]
    folder: Path
    scenes: int
    shards: int
    seconds: float = 0
    peaks: list[int] = field(default_factory=lambda: [0] * _PARTS)
    """Bytes of memory at the highest, of all processes together, in each part."""

    def run(self, until: float | None = None) -> int:
        """Run the command, to its end or until a part (0 … 1) of the work is done; its exit code."""
        start = time.monotonic()
        with _started([sys.executable, "-c", _MAKE, *self.arguments, f"output={self.folder}"]) as process:
            look = 0
            while process.poll() is None:
                done = self._done()
                if until is not None and done >= until:
                    process.kill()
                elif look % _LOOKS_PER_WEIGHING == 0:
                    part = min(int(done * _PARTS), _PARTS - 1)
                    self.peaks[part] = max(self.peaks[part], sum(map(_memory, _tree(process.pid))))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                look += 1
        self.seconds += time.monotonic() - start
        return process.returncode

    def _done(self) -> float:
        """Share of the work: half of it is to examine, half to write."""
        try:
            examined = (self.folder / ".preparing" / "verdicts.bin").stat().st_size / VERDICT.itemsize / self.scenes
        except FileNotFoundError:
            examined = 0.0
        written = sum(1 for _ in self.folder.glob("*.tar")) / self.shards if examined >= 1 else 0.0
        return (examined + written) / 2

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main(arguments: list[str]) -> None:
    """Render, make, kill, compare."""
    if {"--help", "-h"} & set(arguments):
        echo(ABOUT)
        return
    options, rest = split_settings(arguments, KillOptions)
    if not any(argument.startswith("samples_per_shard=") for argument in rest):
        rest = ["samples_per_shard=1000", *rest]
    with tempfile.TemporaryDirectory(prefix="blip2-shards-") as temporary:
        _show((options.folder or Path(temporary)).absolute(), options.scenes, options.kills, rest)


def _show(folder: Path, scenes: int, kills: int, rest: list[str]) -> None:
    _, options = read_request(["source=x", "output=y", *rest])
    start = time.monotonic()
    none = {"val_scenes": 0, "test_scenes": 0, "nocaps_scenes": 0}
    world = ensure_world(folder / f"scenes-{scenes}", train_scenes=scenes, image_folders=("train",), **none)
    echo(f"{scenes:,} images in {world.images / 'train'}, after {time.monotonic() - start:.1f} s")
    source = [f"source={world.karpathy}", f"images={world.images}", "split=train"]
    shards = -(-scenes // options.samples_per_shard)
    made: list[_Making] = []
    for name in ("in-one-go", "killed"):
        shutil.rmtree(folder / name, ignore_errors=True)
        made.append(_Making([*source, *rest], folder / name, scenes, shards))
    whole, killed = made
    _expect(0, whole.run())
    echo(f"in one go: {whole.seconds:.1f} s, {scenes / whole.seconds:,.0f} images/s")
    peaks = ", ".join(f"{peak / 2**20:,.0f}" for peak in whole.peaks)
    echo(f"memory of all processes, MiB, highest in each {_PARTS}th of the work: {peaks}")
    for number in range(1, kills + 1):
        share = number / (kills + 1)
        _expect(-signal.SIGKILL, killed.run(until=share))
        echo(f"killed when {share:.0%} were done")
    _expect(0, killed.run())
    echo(f"with {kills} kills: {killed.seconds:.1f} s")
    first, second = whole.digests(), killed.digests()
    if first != second:
        names = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
        raise ShardError(f"{len(names)} files differ, the first is {names[0]}; see {whole.folder} and {killed.folder}")
    echo(f"the same {len(first)} files, byte for byte")
    for making in made:
        shutil.rmtree(making.folder)


def _expect(code: int, status: int) -> None:
    if status != code:
        raise ShardError(f"make_shards.py ended with {status} instead of {code}; its output is above")


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the context."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _tree(pid: int) -> list[int]:
    """A process and all that it started, as Linux lists them."""
    processes = [pid]
    for parent in processes:
        for file in Path(f"/proc/{parent}/task").glob("*/children"):
            processes += map(int, _text(file).split())
    return processes


def _memory(pid: int) -> int:
    """Bytes that a process holds; what it shares with others counts in part, so that sums are right."""
    lines = _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the process has ended
        return ""


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))


if __name__ == "__main__":
    command()
