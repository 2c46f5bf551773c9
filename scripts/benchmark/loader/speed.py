"""How many images a core reads in a second, beside a bare loop that decodes and resizes the same bytes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from benchmark.loader.options import LoaderOptions
from benchmark.loader.reading import open_data
from benchmark.loader.repeated import RepeatedConfig
from benchmark.record import Record, ratios
from blip2_train.data.sources.config import SourceConfig
from blip2_train.training.data_module import ImageTextDataModule

ABOUT = {
    "bare": "bytes in memory, decoded and resized to the square as a whole, nothing else",
    "loader": "the training loader: shard, caption, decoding, random crop, flip, tensor, normalising, tokens, batch",
    "loader, draft": "the same with data.draft=true",
    "loader, fast": "the same with data.decoder=fast",
}


@dataclass
class Way:
    """A way to read every image once."""

    name: str
    read: Callable[[], int]
    """Returns how many images were read."""
    images: int = 0
    """Read in a turn."""
    seconds: list[float] = field(default_factory=list)
    """Of each turn."""
    busy: list[float] = field(default_factory=list)
    """Processor time of each turn, which does not grow when others use the processor too."""


def measure_speed(source: SourceConfig, options: LoaderOptions) -> Record:
    """Time each way in turn, in this process, on one core.

    Returns:
        Of each way, by name: images per second and core, and its speed beside the bare loop.
    """
    chosen = RepeatedConfig(path=source.path, name=source.name, samples=options.images)
    opened, steps = chosen.own_source(), options.images // options.batch_size
    contents = [opened.read(number).image for number in range(options.images)]
    ways = [Way("bare", lambda: _bare(contents, options.image_size))]
    for name, settings in (("loader", {}), ("loader, draft", {"draft": True}), ("loader, fast", {"decoder": "fast"})):
        data = open_data(chosen, options, (options.turns + 1) * steps, **settings)
        ways.append(Way(name, _loader(data, steps)))
    for turn in range(options.turns + 1):  # the first warms up
        for way in ways if turn % 2 else reversed(ways):
            began, worked = time.perf_counter(), time.process_time()
            way.images = way.read()
            if turn:
                way.seconds.append(time.perf_counter() - began)
                way.busy.append(time.process_time() - worked)
    mean_bytes = sum(map(len, contents)) / len(contents)
    return {"image_bytes": mean_bytes, "ways": {way.name: _record(way, ways[0]) for way in ways}}


def _record(way: Way, bare: Way) -> Record:
    return {
        "about": ABOUT[way.name],
        "images_per_second_and_core": way.images / sorted(way.busy)[len(way.busy) // 2],
        "seconds_per_image": sorted(way.seconds)[len(way.seconds) // 2] / way.images,
        "speed_by_processor_time": ratios(_each(bare, bare.busy), _each(way, way.busy)),
        "speed": ratios(_each(bare, bare.seconds), _each(way, way.seconds)),
    }


def _each(way: Way, times: list[float]) -> list[float]:
    return [one / way.images for one in times]


def _bare(contents: list[bytes], side: int) -> int:
    for content in contents:
        Image.open(io.BytesIO(content)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return len(contents)


def _loader(data: ImageTextDataModule, steps: int) -> Callable[[], int]:
    batches: Iterator[Any] = iter(data.train_dataloader())
    return lambda: sum(len(next(batches)) for _ in range(steps))
