"""`python scripts/make_shards.py source=… output=… [key=value …]`: tar shards from what people have."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from blip2_train.cli.command_names import as_called
from blip2_train.cli.phase_progress import PhaseProgress
from blip2_train.cli.terminal import kept_when_stopped, run_command
from blip2_train.config.key_values import read_settings
from blip2_train.data.prepare.destination import open_destination
from blip2_train.data.prepare.engine import EngineName, open_engine, paths_here
from blip2_train.data.prepare.options import ShardOptions
from blip2_train.data.shards.shard_lists import INDEX
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

ABOUT = """\
Make tar shards in the layout of img2dataset, with index.json (samples, bytes and SHA-256 of every shard) and
rejected.jsonl (every sample that is not in them, with the reason). Images are copied byte for byte. Repeated, the
command goes on where it was stopped; the shards do not depend on that, nor on the number of processes.

usage: python scripts/make_shards.py source=<what> output=<folder> [key=value …]

  source=<what>           tar shards (folder, 'glob*.tar', '{00..99}.tar', [a.tar,b.tar]); .csv .tsv .jsonl .json .token
                          with captions (COCO, Karpathy, Visual Genome's regions, rows); .parquet; images are paths,
                          or base64, or bytes; a folder of images with .txt or .json beside each; or a list of such
  output=<folder>         a new one, or that of the same command before; here or on s3:// or gs://, like tar shards
  images=<folder>         where the paths of the source start, or a glob of several (the source's own folder)
  split=<a+b>             which images, of a source with splits
  picture_column=<name>   column or key of the image, where it is not a usual one; likewise id_column
  caption_column=<name>   column or key of the caption; of shards and folders, in the .json of each sample
  samples_per_shard=<n>   samples in every shard but the last (10000)
  min_side=<pixels>       reject images with a shorter side (0)
  max_aspect_ratio=<x>    reject images whose sides have a greater ratio (null = none)
  duplicates=<keep>       keep images whose file is that of an earlier sample (drop)
  exclude=[a.json,b.txt]  reject the images of these annotation files, or those whose id, path or SHA-256 is a line of
                          these text files: what you test on
  exclude_split=<a+b>     which images of those annotation files
  resize=<pixels>         scale larger images down to this shorter side, as JPEG (null = copy)
  quality=<1 to 100>      of those JPEGs (95)
  workers=<n>             processes (one per core)
  engine=<local|ray>      processes of this machine, or workers of Ray: one started here, or a cluster with
  ray_address=<address>   auto, <host>:<port> or ray://<host>:<port>, whose machines all see source and output
  --help                  this text"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What shards are made from, and where they go."""

    source: str | Sequence[str]
    output: str
    images: str | None = None
    split: str | None = None
    picture_column: str | None = None
    caption_column: str | None = None
    id_column: str | None = None
    exclude: Sequence[str] = ()
    exclude_split: str | None = None
    workers: int | None = None
    """Processes; None = one for each core that this process, or a Ray cluster, may use."""
    engine: EngineName = "local"
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}")
        if self.exclude_split is not None and not self.exclude:
            raise ConfigError("exclude_split chooses among the images of exclude=, which is not given")


def main(arguments: list[str]) -> None:
    """Make the shards, and say what was made."""
    if not arguments or {"--help", "-h"} & set(arguments):
        echo(as_called(ABOUT))
        return
    request, options = read_request(arguments)
    from blip2_train.data.prepare.examination import read_exclusions  # these load torch, which help does not need
    from blip2_train.data.prepare.opening import open_pairs
    from blip2_train.data.prepare.preparation import REJECTED, UNFINISHED, Preparation

    columns = request.picture_column, request.caption_column, request.id_column
    source = open_pairs(request.source, request.images, request.split, *columns)
    excluded = read_exclusions(request.exclude, request.exclude_split)
    folder = open_destination(request.output)
    kept_when_stopped(f"what is done so far is kept for {folder}, and the same command goes on from there")
    preparation = Preparation(
        source=source, folder=folder.folder, options=options, excluded=excluded, destination=folder
    )
    shared = [*paths_here(request.source, request.images), str(folder.folder / UNFINISHED)]
    where = open_engine(request.engine, request.workers, ray_address=request.ray_address, shared=shared)
    with where as engine, PhaseProgress() as shown:
        index = preparation.run(engine, shown)
    counts = dict(index["rejected"])
    listed = ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"
    echo(f"shards:    {len(index['shards']):,} in {folder}, {index['samples']:,} samples, {index['bytes']:,} bytes")
    echo(f"rejected:  {listed}; see {folder}/{REJECTED}")
    echo(f"index:     {folder}/{INDEX}")
    if excluded and "excluded" not in counts:
        echo(f"none of the {len(excluded):,} excluded names was met: see whether the source names images like that")


def read_request(arguments: Sequence[str]) -> tuple[Request, ShardOptions]:
    """What the arguments ask for.

    Raises:
        ConfigError: if a setting is unknown, missing, given twice, or has a value that cannot be used.
    """
    request, options = read_settings(arguments, (Request, ShardOptions), "python scripts/make_shards.py")
    return request, options


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
