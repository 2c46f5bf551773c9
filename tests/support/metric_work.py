"""What one and two processes do alike in `test_metric_objects`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_train.distributed import from_first, is_distributed, rank
from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.metric_states import AnswerMetric, CaptionMetric, RecallMetric, Rows, Totals

CAPTIONS = {
    30: "a cat on a mat",
    4: "two dogs run\nacross a field",
    17: "",
    9: "three red apples",
    11: "a café – “open”",
}
REFERENCES = {key: [text or "a tree", f"there is {text or 'nothing'}"] for key, text in CAPTIONS.items()}
REFERENCES[9] = ["some apples on a table"]
QUESTIONS = {"7a": "yes", "1": "two", "02": "a dog", "x": "no"}
TYPES = {"7a": "is it", "1": "how many", "02": "what", "x": "is it"}


def feature_case() -> tuple[Tensor, Tensor, Tensor]:
    """Features of 7 images `(7, 3, 5)` and of 2 texts for each, similar to their images, and whose each text is."""
    generator = torch.Generator().manual_seed(2)
    images = F.normalize(torch.randn(7, 3, 5, generator=generator), dim=-1)
    image_of_text = torch.arange(7).repeat_interleave(2)
    texts = images[image_of_text, 1] + 0.9 * torch.randn(14, 5, generator=generator)
    return images, F.normalize(texts, dim=-1), image_of_text


def metrics_of_share(of_one: bool = False) -> dict[str, dict[str, float]]:
    """Scores of all samples; of two processes, each adds its share, and the second one sample of the first too.

    With `of_one`, the second process has all samples, and the first none.
    """

    def share(keys: list) -> list:
        shares = [[], keys] if of_one else [keys[:2], [keys[1], *keys[2:]]]
        return shares[rank()] if is_distributed() else keys

    captions, answers, recall = CaptionMetric(("bleu_4", "cider")), AnswerMetric(), RecallMetric()
    totals, rows = Totals(2), Rows("numbers")
    for key in share(list(CAPTIONS)):
        totals.update(torch.tensor([key + 2**-30, 1.0], dtype=torch.float64))
        rows.update(numbers=torch.tensor([2**60 + key]))
        captions.update([key], [CAPTIONS[key]], [REFERENCES[key]])
    keys = share(list(QUESTIONS))
    answers.update(
        keys, [QUESTIONS[k] for k in keys], [[QUESTIONS[k], "no", "two"] for k in keys], [TYPES[k] for k in keys]
    )
    images, texts, image_of_text = feature_case()
    mine = torch.tensor(share(list(range(7))))
    own = torch.isin(image_of_text, mine if rank() == 0 or of_one else mine[1:])
    if len(mine):
        mine = mine.long()
        recall.update(images[mine], 100 + mine, texts[own], 100 + image_of_text[own])
    results = {"captions": captions.compute(), "answers": answers.compute(), "recall": recall.compute()}
    with rows.of_all() as everybody:
        numbers = everybody["numbers"]
    assert numbers.dtype == torch.int64 and {int(number) - 2**60 for number in numbers} == set(CAPTIONS)
    if of_one or not is_distributed():
        assert totals.compute().tolist() == [sum(CAPTIONS) + len(CAPTIONS) * 2**-30, len(CAPTIONS)]
    return {kind: {name: float(value) for name, value in scores.items()} for kind, scores in results.items()}


def error_of_the_first() -> str:
    """The error that every process raises when only the first one meets it."""

    def fail() -> None:
        raise ConfigError(f"process {rank()} failed")

    try:
        from_first(fail)
    except ConfigError as error:
        return str(error)
    return ""
