"""The objective trains whatever has the protocol's methods, and asks for nothing twice."""

import torch
from fakes import FakeEncoder
from tiny import image_text_batch

from blip2_train.objectives.representation import RepresentationObjective


def test_each_pass_runs_once_on_trimmed_text() -> None:
    encoder, batch = FakeEncoder(), image_text_batch(5, length=12)
    assert batch.longest_text < 12
    RepresentationObjective()(encoder, batch, torch.Generator())
    assert encoder.calls == [
        ("encode_image", (5, 3, 32, 32)),
        ("encode_text", (5, batch.longest_text)),
        ("match", (15, batch.longest_text)),
        ("caption_logits", (5, batch.longest_text - 1)),  # the last token of a text predicts nothing
    ]


def test_a_plain_loop_lowers_the_losses() -> None:
    encoder, batch = FakeEncoder(), image_text_batch(4)
    optimizer = torch.optim.SGD([encoder.table, encoder.pixels], lr=0.1)
    generator, totals = torch.Generator().manual_seed(0), []
    for _ in range(40):
        output = RepresentationObjective()(encoder, batch, generator)
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        totals.append(output.total.item())
    assert totals[-1] < 0.7 * totals[0]
