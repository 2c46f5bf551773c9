"""Where the pairs of a text and its negative image are matched: where the image lies, as long as there is room.

An image's features are large and a text's ids small, and where an image lies its keys and values are there already. So
a text goes to its negative image. Each micro-batch of each process has room for B such pairs; what is too much for one
(many texts choose the same image) is matched where room is left, to which the image's features then travel.

Shape letters: B samples of a micro-batch of one process, N of the global batch, M pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLayout:
    """How the N samples that are contrasted are split among processes and micro-batches.

    Row b of micro-batch a of process r is sample `(a * processes + r) * rows + b`, as in the global order of the data.
    """

    rows: int
    """B."""
    processes: int = 1
    micro_batches: int = 1

    @property
    def total(self) -> int:
        """N."""
        return self.rows * self.processes * self.micro_batches

    def samples_of(self, process: int) -> Tensor:
        """Samples of a process `(micro_batches, B)`, int64."""
        first = torch.arange(self.micro_batches)[:, None] * self.processes + process
        return first * self.rows + torch.arange(self.rows)

    def in_order(self, gathered: Tensor) -> Tensor:
        """Rows `(N, …)` that were gathered process by process, in the order of samples."""
        if self.micro_batches == 1:
            return gathered
        by_process: Tensor = gathered.unflatten(0, (self.processes, self.micro_batches, self.rows))
        return by_process.transpose(0, 1).flatten(0, 2)

    def as_gathered(self, samples: Tensor) -> Tensor:
        """Positions of samples among rows that are gathered process by process."""
        cell, row = samples // self.rows, samples % self.rows
        return ((cell % self.processes) * self.micro_batches + cell // self.processes) * self.rows + row


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeImagePairs:
    """The pairs of a text and its negative image that are matched in one micro-batch, and what has to travel for them.

    Each list has an entry for every process.
    """

    texts: list[Tensor]
    """`(M,)`, samples; first those whose image lies in this micro-batch of the process."""
    fetched: list[Tensor]
    """Samples whose images the process needs from elsewhere, each once."""
    own_images: Tensor
    """Of this process: rows of this micro-batch, one for each of the first pairs."""
    fetched_images: Tensor
    """Of this process: which of the images from elsewhere, one for each of the other pairs."""


def assign_cells(images: Tensor, layout: BatchLayout, limited: bool = True) -> Tensor:
    """Where the pair of each text and its negative image is matched; a cell is a micro-batch of a process.

    Args:
        images: `(N,)`, int64, on the CPU: the negative image of each text, as a sample.
        layout: Of the samples.
        limited: Whether a cell has room for B pairs; else every pair is matched at its image.

    Returns:
        `(N,)`, int64: `micro-batch * processes + process`; with `limited` each value comes B times.

    Example:
        >>> assign_cells(torch.tensor([3, 3, 3, 0]), BatchLayout(rows=2, processes=2))
        tensor([1, 1, 0, 0])
    """
    cells = images // layout.rows
    if not limited:
        return cells
    parts, processes = layout.micro_batches, layout.processes
    stays = _turn(cells) < layout.rows
    rest = torch.nonzero(~stays).flatten()
    room = layout.rows - torch.bincount(cells[stays], minlength=parts * processes)
    process = _with_room(cells[rest] % processes, room.view(parts, processes).sum(dim=0))
    by_process = torch.arange(parts * processes).view(parts, processes).T.flatten()
    assigned = cells.clone()
    assigned[rest[process.argsort(stable=True)]] = by_process.repeat_interleave(room[by_process])
    return assigned


def pairs_of(micro_batch: int, process: int, images: Tensor, cells: Tensor, layout: BatchLayout) -> NegativeImagePairs:
    """The pairs of one micro-batch of a process.

    Args:
        micro_batch: Which.
        process: Which.
        images: `(N,)`, the negative image of each text.
        cells: `(N,)`, from `assign_cells`.
        layout: Of the samples.
    """
    texts, fetched = [], []
    for one in range(layout.processes):
        cell = micro_batch * layout.processes + one
        here = torch.nonzero(cells == cell).flatten()
        away = images[here] // layout.rows != cell
        texts.append(torch.cat([here[~away], here[away]]))
        fetched.append(images[here[away]].unique())
        if one == process:
            own_images = images[here[~away]] % layout.rows
            fetched_images = torch.searchsorted(fetched[one], images[here[away]])
    return NegativeImagePairs(texts=texts, fetched=fetched, own_images=own_images, fetched_images=fetched_images)


def _turn(homes: Tensor) -> Tensor:
    """How many come before each, of those with the same home."""
    counts = torch.bincount(homes)
    order = homes.argsort(stable=True)
    firsts = counts.cumsum(0) - counts
    return torch.empty_like(homes).scatter_(0, order, torch.arange(len(homes)) - firsts[homes[order]])


def _with_room(homes: Tensor, room: Tensor) -> Tensor:
    """A home for each: its own, as long as there is room; `room` is that of each home, and suffices for all."""
    stays = _turn(homes) < room[homes]
    left = room - torch.bincount(homes[stays], minlength=len(room))
    return homes.masked_scatter(~stays, torch.arange(len(room)).repeat_interleave(left))
