from collections.abc import Sequence

import torch
from report_cases import captioning
from tiny import image_text_model

from blip2_train.evaluation.report.attention import with_attention
from blip2_train.evaluation.report.content import Example
from blip2_train.evaluation.report.selection import choose_examples
from blip2_train.models.query_attention import query_attention


def pixels(example: Example) -> torch.Tensor:
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(int(example.id)))


def test_examples_that_are_shown_get_the_attention_to_their_own_image() -> None:
    model, task = image_text_model().eval(), captioning(12)
    result = with_attention(task, model, pixels, examples_per_task=6, layer=0, batch_size=4)
    shown = {choice.example.id for choice in choose_examples(result, 6)}
    assert len(shown) == 6 and {example.id for example in result.examples if example.attention} == shown
    assert [example.id for example in result.examples] == [example.id for example in task.examples]
    for choice in choose_examples(result, 6):
        (maps,) = query_attention(model, pixels(choice.example)[None], layer=0)
        mean, strongest, *single = choice.example.attention
        torch.testing.assert_close(mean.heat, maps.mean(0))
        torch.testing.assert_close(strongest.heat, maps.amax(0))
        for view in single:
            torch.testing.assert_close(view.heat, maps[int(view.label.removeprefix("query "))])


def test_what_the_queries_read_beside_the_image_counts() -> None:
    model, task = image_text_model().eval(), captioning(4)

    def texts(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor([[2, 5 + int(example.id), 7] for example in examples])
        return ids, torch.ones_like(ids, dtype=torch.bool)

    result = with_attention(task, model, pixels, texts=texts, batch_size=3)
    for example in result.examples:
        ids, mask = texts([example])
        (maps,) = query_attention(model, pixels(example)[None], input_ids=ids, attention_mask=mask)
        torch.testing.assert_close(example.attention[0].heat, maps.mean(0))
        (alone,) = query_attention(model, pixels(example)[None])
        assert (example.attention[0].heat - alone.mean(0)).abs().max() > 1e-4
