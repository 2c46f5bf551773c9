import torch
from report_cases import captioning
from tiny import image_text_model

from blip2_train.evaluation.report.attention import with_attention
from blip2_train.evaluation.report.content import Example
from blip2_train.evaluation.report.selection import choose_examples
from blip2_train.models.query_attention import query_attention


def pixels(example: Example) -> torch.Tensor:
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(int(example.id)))


def test_examples_that_are_shown_get_the_attention_to_their_own_picture() -> None:
    model, task = image_text_model().eval(), captioning(12)
    found = with_attention(task, model, pixels, examples_per_task=6, layer=0, batch_size=4)
    shown = {choice.example.id for choice in choose_examples(found, 6)}
    assert len(shown) == 6 and {example.id for example in found.examples if example.attention} == shown
    assert [example.id for example in found.examples] == [example.id for example in task.examples]
    for choice in choose_examples(found, 6):
        (maps,) = query_attention(model, pixels(choice.example)[None], layer=0)
        mean, strongest, *single = choice.example.attention
        torch.testing.assert_close(mean.heat, maps.mean(0))
        torch.testing.assert_close(strongest.heat, maps.amax(0))
        for view in single:
            torch.testing.assert_close(view.heat, maps[int(view.label.removeprefix("query "))])
