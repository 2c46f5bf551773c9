import pytest
from report_cases import captioning

from blip2_train.evaluation.report.score_table import metric, parse, score_table


@pytest.mark.parametrize(
    ("name", "value", "heading", "text", "papers"),
    [
        ("cider", 10.0, "CIDEr", "10.000", "1000.0"),
        ("bleu_1", 0.7148, "BLEU-1 (%)", "71.5", ""),
        ("spice", 0.0, "SPICE (%)", "0.0", ""),
        ("r10", 96.04, "R@10 (%)", "96.0", ""),
        ("accuracy", 78.349, "accuracy (%)", "78.3", ""),
        ("itm_accuracy_match", 50.0, "ITM accuracy match (%)", "50.0", ""),
        ("loss_itc", 1.23456, "ITC loss (nats)", "1.235", ""),
        ("loss", 1.0, "loss (nats)", "1.000", ""),
        ("rank", 1234.0, "rank", "1,234", ""),
        ("pictures", 5000.0, "pictures", "5,000", ""),
        ("my_metric", 0.000123456, "my metric", "0.0001235", ""),
    ],
)
def test_metrics_are_written_as_in_the_field(name: str, value: float, heading: str, text: str, papers: str) -> None:
    found = metric(name)
    assert (found.heading, found.text(value), found.in_papers(value)) == (heading, text, papers)


def test_only_loss_and_rank_are_better_when_lower() -> None:
    assert [metric(name).lower_is_better for name in ("loss_lm", "rank", "cider", "accuracy", "r1")] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "part", "name"),
    [
        ("cider", "", "cider"),
        ("near-domain/cider", "near-domain", "cider"),
        ("image_to_text_r1", "image→text", "r1"),
        ("itm/text_to_image_r5", "itm, text→image", "r5"),
        ("yes/no/accuracy", "yes/no", "accuracy"),
        ("", "", ""),
        ("a\nb/cider", "a\nb", "cider"),
    ],
)
def test_keys_are_taken_apart(key: str, part: str, name: str) -> None:
    assert parse(key) == (part, name)


def test_absent_and_missing_scores_differ_and_reasons_are_said_once_or_by_part() -> None:
    scores = {"cider": 1.0, "spice": None, "out-domain/spice": None, "out-domain/bleu_4": 0.25}
    table = score_table(captioning(scores=scores, reasons={"spice": "no models"}))
    assert [column.label for column in table.columns] == ["CIDEr", "SPICE", "BLEU-4"]
    texts = [(part, [cell.text for cell in cells]) for part, cells in table.rows]
    assert texts == [("all", ["1.000", "—", ""]), ("out-domain", ["", "—", "25.0"])]
    assert table.missing == (("SPICE", "no models"),)
    by_part = {"spice": "no models", "out-domain/spice": "too slow"}
    table = score_table(captioning(scores=scores, reasons=by_part))
    assert dict(table.missing) == {"SPICE": "no models", "SPICE, out-domain": "too slow"}
