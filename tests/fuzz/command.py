"""`bash run_scripts/fuzz.sh [inputs=20000] [seed=0]`: files that are wrong in many ways, given to all readers."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
ABOUT = """\
Change valid files (manifests, annotations of each layout, shards, their sidecars and indexes, tokenizers, results,
configurations, images, weights) in ways that follow from a seed, and read them. Each must be read, or refused by an
error of this project with one short message. Anything else (another exception, 5 s, more memory than 3 GiB, something
printed or written elsewhere) is a failure, and printed with what makes the input anew. Ends with 1 if there is one.
Linux only.

usage: bash run_scripts/fuzz.sh [option=value …]

  inputs=<n>         how many (20000)
  seed=<n>           decides them (0)
  input=<n>          this one alone: shows what is in it and what happens
  only=<words>       readers whose name holds this; other inputs than without it
  processes=<n>      (2)
  --help             this text"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which inputs are made, and read by whom."""

    inputs: int = 20_000
    seed: int = 0
    input: int | None = None
    only: str = ""
    processes: int = 2


def main(arguments: list[str]) -> int:
    """Read all inputs; the exit code."""
    if {"--help", "-h"} & set(arguments):
        print(ABOUT)
        return 0
    _prepare()
    from blip2_train.config.key_values import read_settings
    from blip2_train.errors import ConfigError

    try:
        (options,) = read_settings(arguments, (Options,), "bash run_scripts/fuzz.sh")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.input is not None:
        return _show(options.seed, options.input, options.only)
    return _run(options.inputs, options.seed, options.only, max(1, options.processes))


def _prepare() -> None:
    for folder in (TESTS / "support", TESTS, TESTS.parent, TESTS / "support" / "interpreter"):
        sys.path.insert(0, str(folder))
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", WANDB_MODE="offline")
    sys.modules.pop("sitecustomize", None)
    __import__("sitecustomize")
    __import__("composed_once").compose_each_choice_once()


def _run(inputs: int, seed: int, only: str, processes: int) -> int:
    from fuzz.running import Outcome

    began, outcome = time.monotonic(), Outcome()
    parts = [(seed, only, list(range(first, min(first + 250, inputs)))) for first in range(0, inputs, 250)]
    with multiprocessing.get_context("fork").Pool(processes, _begin, (seed, only)) as pool:
        for number, part in enumerate(pool.imap_unordered(_part, [part[2] for part in parts]), 1):
            outcome.add(part)
            if number % 8 == 0:
                print(f"  {min(number * 250, inputs):,} inputs, {len(outcome.failures)} failures", flush=True)
    seconds = time.monotonic() - began
    for name in sorted({*outcome.read, *outcome.refused}):
        print(f"{name:28} {outcome.read[name]:6} read {outcome.refused[name]:6} refused")
    kinds = Counter((where, message.partition("'")[0]) for _, where, message in outcome.failures)
    for (where, message), count in kinds.most_common(60):
        number = next(n for n, what, text in outcome.failures if what == where and text.startswith(message))
        text = next(text for n, what, text in outcome.failures if n == number and what == where)
        print(f"FAILED {count}x  {where}: {text}\n        seed={seed} input={number}{f' only={only}' if only else ''}")
    total = sum(outcome.read.values()) + sum(outcome.refused.values())
    print(
        f"seed {seed}: {total:,} of {inputs:,} inputs as they have to be, {len(outcome.failures)} failures; slowest "
        f"{outcome.slowest:.2f} s, memory at most {outcome.peak / 2**20:,.0f} MiB; {seconds:.0f} s"
    )
    return int(bool(outcome.failures) or total != inputs)


def _begin(seed: int, only: str) -> None:
    from fuzz.running import Fuzzer

    global _fuzzer, _temporary
    _temporary = tempfile.TemporaryDirectory(prefix="blip2-fuzz-", ignore_cleanup_errors=True)
    os.environ["XDG_CACHE_HOME"] = str(Path(_temporary.name) / "cache")
    _fuzzer = Fuzzer(Path(_temporary.name) / "fuzz", seed, only)


def _part(numbers: list[int]):
    return _fuzzer.run(numbers)


def _show(seed: int, number: int, only: str) -> int:
    _begin(seed, only)
    reader, name, content = _fuzzer.make(number)
    print(f"{reader.name}, {name}: {len(content)} bytes, {content[:1500]!r}")
    outcome = _fuzzer.run([number])
    print("read" if outcome.read else "refused" if outcome.refused else f"FAILED: {outcome.failures}")
    if outcome.read or outcome.refused:
        print(outcome.failures or "as it has to be")
    return int(bool(outcome.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
