import pytest
import torch

from blip2_train.objectives.pairing import BatchLayout, assign_cells, pairs_of

LAYOUTS = [
    BatchLayout(rows=r, processes=p, micro_batches=m) for r, p, m in [(4, 1, 1), (3, 2, 1), (2, 3, 4), (5, 1, 3)]
]


def choices(layout: BatchLayout, kind: str) -> torch.Tensor:
    texts = torch.arange(layout.total)
    if kind == "one":
        return torch.where(texts == 0, 1, 0)
    if kind == "first":
        return texts % layout.rows
    return torch.randint(0, layout.total, (layout.total,), generator=torch.Generator().manual_seed(0))


def test_samples_have_the_order_of_the_data() -> None:
    layout = BatchLayout(rows=2, processes=3, micro_batches=2)
    assert layout.samples_of(1).tolist() == [[2, 3], [8, 9]]
    gathered = torch.cat([layout.samples_of(process).flatten() for process in range(3)])
    assert layout.in_order(gathered).tolist() == list(range(12))
    assert torch.equal(gathered[layout.as_gathered(torch.arange(12))], torch.arange(12))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", ["one", "first", "random"])
def test_every_pair_is_matched_once_at_its_image_if_there_is_room(layout: BatchLayout, kind: str) -> None:
    images = choices(layout, kind)
    cells = assign_cells(images, layout)
    number = layout.processes * layout.micro_batches
    assert torch.bincount(cells, minlength=number).tolist() == [layout.rows] * number
    chosen = torch.bincount(images // layout.rows, minlength=number)
    for cell in range(number):
        at_home = int((cells[images // layout.rows == cell] == cell).sum())
        assert at_home == min(layout.rows, int(chosen[cell])), "no pair is sent away from where there is room"


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("kind", ["one", "first", "random"])
def test_every_process_finds_the_images_of_its_texts(layout: BatchLayout, limited: bool, kind: str) -> None:
    images = choices(layout, kind)
    cells = assign_cells(images, layout, limited)
    matched = []
    for micro_batch in range(layout.micro_batches):
        for process in range(layout.processes):
            pairs = pairs_of(micro_batch, process, images, cells, layout)
            mine = pairs.texts[process]
            own = layout.samples_of(process)[micro_batch][pairs.own_images]
            located = torch.cat([own, pairs.fetched[process][pairs.fetched_images]])
            assert torch.equal(located, images[mine])
            assert len(pairs.fetched[process]) <= layout.rows and (limited or not len(pairs.fetched[process]))
            assert not set(pairs.fetched[process].tolist()) & set(layout.samples_of(process)[micro_batch].tolist())
            matched.append(mine)
    assert torch.cat(matched).sort().values.tolist() == list(range(layout.total))


def test_room_of_the_same_process_comes_first() -> None:
    """Its features are there already: micro-batch 0 has no room for a third text, the next of that process has."""
    layout = BatchLayout(rows=2, processes=2, micro_batches=2)
    cells = assign_cells(torch.tensor([0, 0, 2, 2, 1, 6, 6, 7]), layout)
    assert cells.tolist() == [0, 0, 1, 1, 2, 3, 3, 2]
