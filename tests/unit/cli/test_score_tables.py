from io import StringIO

from report_cases import captioning, vqa
from rich.console import Console

from blip2_train.cli.score_tables import terminal_table
from blip2_train.evaluation.report.content import TaskReport
from blip2_train.evaluation.retrieval import RetrievalTask


def printed(task: TaskReport, width: int = 100) -> list[str]:
    console = Console(file=StringIO(), width=width)
    console.print(terminal_table(task))
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def test_scores_stand_in_rows_with_the_papers_beside_and_reasons_below() -> None:
    lines = [" ".join(line.split()) for line in printed(captioning())]
    assert lines[0] == "NoCaps val"
    assert "CIDEr SPICE BLEU-4" in lines
    assert "all 1.214 (121.4) —" in lines
    assert "out-domain 0.800 (80.0) 38.2" in lines
    assert lines[-2:] == ["in brackets: times 100, as papers print it", "SPICE: SPICE lacks its models"]
    lines = [" ".join(line.split()) for line in printed(vqa())]
    assert lines[-2:] == ["all 75.0", "answer type yes/no 91.0"]


def test_recall_has_a_row_for_each_direction_and_ranking() -> None:
    scores = {
        f"{s}/{d}_r{k}": 10.0 * k for s in ("itc", "itm") for d in ("image_to_text", "text_to_image") for k in (1, 5)
    }
    task = vqa(kind="retrieval", scores=scores, title="[bold]COCO[/bold]", labels=RetrievalTask.labels)
    lines = [" ".join(line.split()) for line in printed(task)]
    assert lines[0] == "[bold]COCO[/bold]", "a title is no markup"
    assert lines[-4:] == [f"{s}, {d} 10.0 50.0" for s in ("ITC alone", "itm") for d in ("image→text", "text→image")]


def test_a_narrow_terminal_loses_no_number() -> None:
    text = " ".join(printed(captioning(), width=50))
    assert all(number in text for number in ("1.214", "121.4", "0.800", "38.2"))
