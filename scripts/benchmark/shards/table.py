"""Figures of many shards as tables."""

from __future__ import annotations

import statistics

from rich.table import Table

from benchmark.record import Record


def opening_table(opening: Record, shards: int) -> Table:
    """Processor seconds and bytes sent, by way of opening."""
    share = opening["share"]
    table = Table(
        title=f"opening {shards:,} shards again",
        caption=f"one list takes {share['median']:.3f} of the time of each index for itself (median; quartiles "
        f"{share['lower_quartile']:.3f}–{share['upper_quartile']:.3f}); the first time, which reads every shard: "
        f"{opening['first_seconds']:.1f} CPU s",
        caption_justify="left",
    )
    table.add_column("way")
    for heading in ("CPU s", "bytes sent to\neach reader"):
        table.add_column(heading, justify="right")
    for name, about in (("each", "plain: each shard's own index"), ("list", "one list of all shards")):
        seconds = statistics.median(opening["busy"][name])
        table.add_row(about, f"{seconds:.2f}", f"{opening['bytes_sent'][name]:,}")
    return table


def open_files_table(files: Record) -> Table:
    """What stays open, and the time of a sample."""
    table = Table(title=f"reading {files['shards']:,} shards in random order")
    for heading in ("descriptors", "mappings", "CPU µs a sample", "from open shards", "ratio"):
        table.add_column(heading, justify="right")
    times = files["microseconds"]
    ratio = f"{files['times_longer']['median']:.2f}x" if files["times_longer"] else ""
    table.add_row(
        str(files["descriptors"]), str(files["mappings"]), f"{times['many']:.0f}", f"{times['few']:.0f}", ratio
    )
    return table


def requests_table(requests: list[Record]) -> Table:
    """Samples per request and bytes fetched, by size of samples and number of readers."""
    table = Table(
        title="requests to remote storage in the default order, default memory",
        caption="fetched: bytes of all requests, as a multiple of those of the samples",
    )
    for heading in ("KB a sample", "readers", "samples\na request", "fetched"):
        table.add_column(heading, justify="right")
    for one in requests:
        table.add_row(
            f"{one['sample_bytes'] / 1000:g}",
            str(one["readers"]),
            f"{one['samples_per_request']:.1f}",
            f"{one['bytes_fetched_per_byte']:.2f}x",
        )
    return table
