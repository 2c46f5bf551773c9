import pytest
from report_cases import captioning

from blip2_train.evaluation.report.score_table import score_table
from blip2_train.evaluation.retrieval import RetrievalTask


@pytest.mark.parametrize(
    ("name", "part", "heading"),
    [
        ("cider", "", "CIDEr"),
        ("near-domain/cider", "near-domain", "CIDEr"),
        ("yes/no/cider", "yes/no", "CIDEr"),
        ("", "", ""),
        ("a\nb/cider", "a\nb", "CIDEr"),
        ("some_metric", "", "some metric"),
    ],
)
def test_a_score_has_a_part_and_a_metric(name: str, part: str, heading: str) -> None:
    task = captioning()
    assert (task.part(name), task.format(name).heading) == (part, heading)


def test_directions_of_retrieval_are_rows_with_the_same_columns() -> None:
    names = [f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5)]
    scores = dict.fromkeys(names, 50.0) | {"recall_mean": 50.0} | {f"itc/{name}": 25.0 for name in names}
    table = score_table(captioning(scores=scores, labels=RetrievalTask.labels))
    assert [column.heading for column in table.columns] == ["R@1 (%)", "R@5 (%)", "recall mean (%)"]
    assert [(part, [cell.text for cell in cells]) for part, cells in table.rows] == [
        ("image→text", ["50.0", "50.0", ""]),
        ("text→image", ["50.0", "50.0", ""]),
        ("all", ["", "", "50.0"]),
        ("ITC alone, image→text", ["25.0", "25.0", ""]),
        ("ITC alone, text→image", ["25.0", "25.0", ""]),
    ]


def test_absent_and_missing_scores_differ_and_reasons_are_given_once_or_by_part() -> None:
    scores = {"cider": 1.0, "spice": None, "out-domain/spice": None, "out-domain/bleu_4": 0.25}
    table = score_table(captioning(scores=scores, reasons={"spice": "no models"}))
    assert [column.label for column in table.columns] == ["CIDEr", "SPICE", "BLEU-4"]
    texts = [(part, [cell.text for cell in cells]) for part, cells in table.rows]
    assert texts == [("all", ["1.000", "—", ""]), ("out-domain", ["", "—", "25.0"])]
    assert table.missing == (("SPICE", "no models"),)
    by_part = {"spice": "no models", "out-domain/spice": "too slow"}
    table = score_table(captioning(scores=scores, reasons=by_part))
    assert dict(table.missing) == {"SPICE": "no models", "SPICE, out-domain": "too slow"}
