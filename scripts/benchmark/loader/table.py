"""Figures of reading as tables."""

from __future__ import annotations

from rich.table import Table

from benchmark.loader.speed import ABOUT
from benchmark.record import Record


def speed_table(speed: dict[str, Record]) -> Table:
    """Images per second and core, by size of the images and way of reading."""
    about = "\n".join(f"{name}: {text}" for name, text in ABOUT.items())
    table = Table(
        title="reading, one process",
        caption=f"{about}\nspeed: beside the bare loop, median over turns and quartiles",
        caption_justify="left",
    )
    table.add_column("images", no_wrap=True)
    table.add_column("way", no_wrap=True)
    for heading in ("KB\neach", "images/s\nper core", "speed by\nCPU time", "quartiles", "speed by\nclock"):
        table.add_column(heading, justify="right")
    for size, record in speed.items():
        table.add_section()
        for name, way in record["ways"].items():
            by_processor = way["speed_by_processor_time"]
            table.add_row(
                size,
                name,
                f"{record['image_bytes'] / 1e3:.0f}",
                f"{way['images_per_second_and_core']:.1f}",
                f"{by_processor['median']:.2f}x",
                f"{by_processor['lower_quartile']:.2f}–{by_processor['upper_quartile']:.2f}",
                f"{way['speed']['median']:.2f}x",
            )
    return table


def waiting_table(waiting: list[Record]) -> Table:
    """Share of time spent waiting, by length of a step."""
    table = Table(
        title="waiting for data, one reader",
        caption="in a step the training process sleeps; at best: a reader that never pauses and keeps its pace",
        caption_justify="left",
    )
    for heading in ("step, in batches\nof a reader", "step\nms", "waiting\n% of the time", "at best\n%"):
        table.add_column(heading, justify="right")
    for record in waiting:
        table.add_row(
            f"{record['step_per_batch']:.1f}",
            f"{1e3 * record['step_seconds']:.0f}",
            f"{100 * record['share_waiting']:.1f}",
            f"{100 * record['least_share']:.1f}",
        )
    return table


def resuming_table(resuming: list[Record], samples: int, per_second: float) -> Table:
    """Time to the first batch, by position."""
    table = Table(
        title=f"resuming in a set of {samples:,} samples",
        caption=f"by reading on: what reading all samples before would take at {per_second:.0f} a second (reckoned)",
        caption_justify="left",
    )
    for heading in (
        "epochs\nbefore",
        "samples\nbefore",
        "first batch\nms",
        "beside the\nstart",
        "by CPU\ntime",
        "samples\nread",
    ):
        table.add_column(heading, justify="right")
    table.add_column("by reading on\nhours", justify="right")
    for record in resuming:
        table.add_row(
            f"{record['epochs']:g}",
            f"{record['samples_before']:,}",
            f"{1e3 * record['seconds']:.0f}",
            f"{record['times_longer']['median']:.2f}x",
            f"{record['times_longer_by_processor_time']['median']:.2f}x",
            f"{record['samples_read']:,}",
            f"{record['samples_before'] / per_second / 3600:.1f}",
        )
    return table


def access_table(access: dict[str, Record]) -> Table:
    """Speed, requests and memory, by way of access."""
    table = Table(
        title="access to shards, one process, nothing indexed before",
        caption="memory: beyond what the process had before it opened the source",
        caption_justify="left",
    )
    table.add_column("access", no_wrap=True)
    for heading in (
        "first batch\ns",
        "requests\nuntil then",
        "images/s\nper core",
        "images/s\nby clock",
        "requests\nper image",
        "memory\nMB",
    ):
        table.add_column(heading, justify="right")
    for name, record in access.items():
        table.add_row(
            name,
            f"{record['first_batch']['seconds']:.2f}",
            f"{record['first_batch']['requests']:,}",
            f"{record['images_per_second_and_core']:.1f}",
            f"{record['images_per_second']:.1f}",
            f"{record['requests_per_image']:.4f}",
            f"{record['memory_bytes'] / 1e6:.0f}",
        )
    return table
