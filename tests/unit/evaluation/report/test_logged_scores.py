import pytest

from blip2_train.evaluation.report.logged_scores import logged_format
from blip2_train.evaluation.retrieval import RetrievalTask


@pytest.mark.parametrize(
    ("name", "value", "heading", "text", "papers"),
    [
        ("cider", 10.0, "CIDEr", "10.000", "1000.0"),
        ("bleu_1", 0.7148, "BLEU-1 (%)", "71.5", ""),
        ("spice", 0.0, "SPICE (%)", "0.0", ""),
        ("image_to_text_r10", 96.04, "R@10 (%)", "96.0", ""),
        ("accuracy", 78.349, "accuracy (%)", "78.3", ""),
        ("itm_accuracy_match", 50.0, "ITM accuracy on matches (%)", "50.0", ""),
        ("loss_itc", 1.23456, "ITC loss (nats)", "1.235", ""),
        ("loss", 1.0, "loss (nats)", "1.000", ""),
        ("pictures", 5000.0, "pictures", "5,000", ""),
        ("my_metric", 0.000123456, "my metric", "0.0001235", ""),
    ],
)
def test_logged_metrics_are_shown_as_in_the_field(
    name: str, value: float, heading: str, text: str, papers: str
) -> None:
    how = logged_format(name)
    assert (how.heading, how.text(value), how.in_papers(value)) == (heading, text, papers)


def test_only_loss_and_rank_are_better_when_lower() -> None:
    assert [logged_format(name).lower_is_better for name in ("loss_lm", "cider", "accuracy", "image_to_text_r1")] == [
        True, False, False, False,
    ]  # fmt: skip
    rank = RetrievalTask.labels.metrics["rank"]
    assert rank.lower_is_better and (rank.heading, rank.text(1234.0)) == ("rank", "1,234")
