"""What stands in the page, and that nothing in the data becomes part of it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from report_cases import SETTINGS, captioning, example, image, vqa
from torch.nn import functional as F

from blip2_train.evaluation.report.content import TaskReport, WordView
from blip2_train.evaluation.report.image_data import attention_views
from blip2_train.evaluation.report.page import run_name, write_report
from blip2_train.evaluation.retrieval import RetrievalTask
from blip2_train.training.run_log import write_results

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</style><style>*{display:none}</style>",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "&lt;b&gt; &amp; <b>&</b>",
    "line\u2028separator\u2029and\x00null\x85\x1b[31m",
    "<!-- comment --> ]]> {{ x }} ${x}",
    "javascript:alert(5)",
    "lone \ud800 half and \u202e reversed",
)


class Reader(HTMLParser):
    """Tags with their attributes, and the text of each outside script and style."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.comments = 0
        self._raw = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} comes twice"
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if not self._raw and data.strip():
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments += 1

    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Tags and names of attributes: what stays the same whatever the data say."""
        return [(tag, tuple(attributes)) for tag, attributes in self.tags]


def page_of(tmp_path: Path, *tasks: TaskReport, **options: object) -> str:
    return write_report(tmp_path / "report.html", tasks, **options).read_text("utf-8")  # type: ignore[arg-type]


def hostile_task(text: str) -> TaskReport:
    """The text wherever data can stand."""
    hostile = example(1, prediction=text, references=[text, text], question=text, id=text, domain=text)
    return captioning(
        name=text, title=text, examples=[hostile], reasons={"spice": text},
        scores={"cider": 1.2, "spice": None, f"{text}/cider": 1.0},
        settings=replace(
            SETTINGS, checkpoint=text, checkpoint_fingerprint=text, data_fingerprints={text: text}, prompt=text,
            decoding={text: text}, versions={text: text},
        ),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_data_never_become_markup(text: str, tmp_path: Path) -> None:
    tame = Reader(page_of(tmp_path, hostile_task("tame"), title="tame"))
    wild = Reader(page_of(tmp_path, hostile_task(text), title=text))
    assert wild.shape() == tame.shape()
    assert wild.comments == 0
    seen = text.encode("utf-8", "replace").decode("utf-8")
    seen = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", seen)
    shown = [part for part in wild.text if seen in part]
    assert len(shown) >= 14, "every place shows the text as it is"
    links = [attributes["href"] for tag, attributes in wild.tags if tag == "a"]
    assert links and all(link and link.startswith("#task=") for link in links)


def test_a_title_names_run_and_task(tmp_path: Path) -> None:
    settings = replace(SETTINGS, checkpoint="/data/outputs/demo_stage1/2026-12-01_20-03/export/")
    shown = Reader(page_of(tmp_path, captioning(settings=settings), vqa())).text
    assert shown[0] == shown[1] == "demo_stage1/2026-12-01_20-03 and outputs/caption on NoCaps val, VQAv2 val"
    many = [vqa(name=str(number), title=f"set {number}") for number in range(4)]
    assert Reader(page_of(tmp_path, *many)).text[0] == "outputs/caption on set 0, set 1 and 2 more"
    assert run_name("Salesforce/blip2-opt-2.7b") == "Salesforce/blip2-opt-2.7b"
    assert run_name("outputs/demo_stage1/2026/export [blip2_train export (stage1)]") == "demo_stage1/2026"


def test_some_images_stand_at_the_top_if_there_are_many(tmp_path: Path) -> None:
    many = Reader(page_of(tmp_path, captioning(20)))
    tags = [(tag, a) for tag, a in many.tags if tag in ("section", "img", "a")]
    before = tags[: next(n for n, (tag, _) in enumerate(tags) if tag == "section")]
    links = [str(a["href"]) for tag, a in before if tag == "a"]
    assert len([1 for tag, _ in before if tag == "img"]) == 6
    assert links[1:] == [f"#task=nocaps&find={number:04d}" for number in (19, 16, 13, 10, 7, 4)]
    few = Reader(page_of(tmp_path, vqa()))
    assert "glance" not in [attributes.get("class") for _, attributes in few.tags]


def test_a_card_names_the_direction_of_retrieval(tmp_path: Path) -> None:
    text = Reader(page_of(tmp_path, vqa(labels=RetrievalTask.labels, example_metric="rank"))).text
    assert text.count("image → text: the text that came first for this image") == 4


def test_a_tile_shows_what_chance_reaches(tmp_path: Path) -> None:
    scores, labels = {"image_to_text_r1": 61.2, "recall_mean": 80.0}, RetrievalTask.labels
    known = vqa(scores=scores, labels=labels, chance={"image_to_text_r1": 0.41}, examples=[])
    tile = r'class="tile".*?<b>61.2</b>.*?<span class="papers">chance 0.4</span></a>'
    assert re.search(tile, page_of(tmp_path, known), flags=re.DOTALL)
    for unknown in (vqa(scores=scores, labels=labels, examples=[]), replace(known, headline="recall_mean")):
        assert "chance" not in Reader(page_of(tmp_path, unknown)).text


def test_words_with_a_map_can_be_pressed(tmp_path: Path) -> None:
    words = [WordView(word="two", heat=None), WordView(word="<red>", heat=torch.rand(3, 3)),
             WordView(word="foxes", heat=10 * torch.rand(3, 3))]  # fmt: skip
    one = example(1, prediction="two <red> foxes", words=words)
    reader = Reader(page_of(tmp_path, captioning(examples=[one])))
    buttons = [attributes for tag, attributes in reader.tags if tag == "button" and attributes.get("class") == "word"]
    assert [button["data-view"] for button in buttons] == ["6", "7"], "behind the six views of the queries"
    heats = [str(a["alt"]) for tag, a in reader.tags if tag == "img" and a.get("class") == "heat"]
    assert len(heats) == 8 and heats[6:] == ["where the word “<red>” looks", "where the word “foxes” looks"]
    assert "<red>" in reader.text


def test_only_the_pages_own_script_may_run_and_nothing_is_fetched(tmp_path: Path) -> None:
    page = page_of(tmp_path, captioning(), vqa())
    reader = Reader(page)
    assert [tag for tag, _ in reader.tags].count("script") == 1
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe-inline'; script" in policy
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes), tag
        if "src" in attributes:
            assert tag == "img" and str(attributes["src"]).startswith("data:image/")
    assert not re.search(r"https?://", page)


def test_numbers_are_written_as_in_papers_and_a_missing_one_has_its_reason(tmp_path: Path) -> None:
    reader = Reader(page_of(tmp_path, captioning(), vqa()))
    text = reader.text
    assert {"1.214", " · 121.4", "121.4 in papers", "38.2", "75.0", "91.0"} <= set(text)
    assert "answer type yes/no" in text and "domain" in text
    row, other = text.index("all"), text.index("out-domain")
    assert text[row + 1 : row + 4] == ["1.214", " · 121.4", "—"], "a null is no 0"
    assert text[other + 1 : other + 4] == ["0.800", " · 80.0", "38.2"]
    assert "SPICE: SPICE lacks its models" in text


def test_cards_show_prediction_and_references(tmp_path: Path) -> None:
    reader = Reader(page_of(tmp_path, vqa()))
    text = reader.text
    cards = [attributes for tag, attributes in reader.tags if attributes.get("class") == "card"]
    assert [card["data-score"] for card in cards] == ["75", "50", "25", "0"]
    assert {card["data-domain"] for card in cards} == {"what is"}
    first = text.index("what is number 3?")
    assert text[first + 1 : first + 5] == ["a disc", "people answered", "a disc × 3", "ball × 7"]
    assert "(nothing)" not in text
    silent = Reader(page_of(tmp_path, captioning(examples=[example(1, prediction=" ")])))
    assert "(nothing)" in silent.text


def test_the_bound_on_examples_is_kept_and_stated(tmp_path: Path) -> None:
    reader = Reader(page_of(tmp_path, captioning(40), vqa(), examples_per_task=10))
    cards = [attributes for tag, attributes in reader.tags if attributes.get("class") == "card"]
    assert len(cards) == 14
    sentence = "NoCaps val: 10 of 40 examples are shown: the 3 best, the 3 worst, 4 evenly spread between them."
    assert sentence in reader.text
    assert "VQAv2 val: all 4 examples are shown." in reader.text


def test_an_image_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(image(3, kind="PNG"))
    examples = [
        example(0, image=b"no image"),
        example(2, image=tmp_path / "absent.jpg"),
        example(4, image=tmp_path / "there.png"),
    ]
    reader = Reader(page_of(tmp_path, captioning(examples=examples)))
    assert reader.text.count("This image could not be read.") == 2
    assert [a.get("alt") for tag, a in reader.tags if tag == "img"] == ["image 0004"]


def test_every_control_has_a_name_and_every_image_a_description(tmp_path: Path) -> None:
    reader = Reader(page_of(tmp_path, captioning(), vqa()))
    labelled = {attributes.get("for") for tag, attributes in reader.tags if tag == "label"}
    inside = False
    for tag, attributes in reader.tags:
        inside = tag == "label" or (inside and tag in ("span", "select", "input"))
        if tag in ("select", "input"):
            assert inside or attributes.get("aria-label") or attributes.get("id") in labelled, attributes
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg" and attributes.get("aria-hidden") != "true":
            assert attributes["role"] == "img" and attributes["aria-label"]
    assert next(attributes for tag, attributes in reader.tags if tag == "html")["lang"] == "en"


def test_curves_of_the_run_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,train/loss_lm,val/loss_lm,val/images,val/text_to_image_r1,val/text_to_image_r5\n"
        "1,3.0,,,,\n10,2.0,2.5,64,10.0,30.0\n20,1.0,1.5,64,20.0,40.0\n"
    )
    write_results(tmp_path, {"chance/loss_lm": 7.378})
    reader = Reader(page_of(tmp_path, captioning(), run_folders=[tmp_path]))
    shown = [attributes for tag, attributes in reader.tags if tag == "svg" and attributes.get("aria-hidden") != "true"]
    drawn = [str(attributes["aria-label"]) for attributes in shown]
    assert "LM loss (nats): train from 3.000 to 1.000; held-out from 2.500 to 1.500; chance 7.378" in drawn
    assert "chance 7.378 ▲" in reader.text, "beyond the scale, which follows the curve"
    assert {"10", "15", "20"} <= set(reader.text), "ticks are round"
    assert reader.text.count("optimiser step") == 2
    assert "text→image recall (%): R@1 from 10.0 to 20.0; R@5 from 30.0 to 40.0" in drawn
    assert len([tag for tag, _ in reader.tags if tag == "polyline"]) == 4
    other = tmp_path / "<i>run"
    other.mkdir()
    (other / "metrics.csv").write_text("step,train/loss_lm\n1,3.0\n2,2.0\n")
    both = Reader(page_of(tmp_path, captioning(), run_folders=[tmp_path, other]))
    assert any("<i>run, which" in text for text in both.text) and not [tag for tag, _ in both.tags if tag == "i"]
    labels = [a.get("aria-label") for _, a in both.tags]
    assert "LM loss (nats): train from 3.000 to 2.000" in labels
    names = [f"{'/'.join(folder.parts[-2:])}" for folder in (tmp_path, other)]
    over = f"LM loss (nats), train: {names[0]} from 3.000 to 1.000; {names[1]} from 3.000 to 2.000"
    assert over in labels, "both in one chart"
    (tmp_path / "results.json").write_text("{")
    assert "7.378" not in page_of(tmp_path, captioning(), run_folders=[tmp_path]), "damaged: drawn without chance"
    assert "Training curves" not in Reader(page_of(tmp_path, captioning(), run_folders=[tmp_path / "elsewhere"])).text


@pytest.mark.slow
def test_two_hundred_photographs_take_a_few_megabytes(tmp_path: Path) -> None:
    examples, grids = [], (2, 6, 18, 54, 160)
    for number in range(50):  # 640 x 480 with detail on all scales, as photographs have it
        scales = [F.interpolate(torch.randn(1, 3, 3 * n, 4 * n), (480, 640), mode="bilinear") / n**0.8 for n in grids]
        pixels = (128 + 90 * torch.stack(scales).sum(0)[0]).clamp(0, 255).byte().permute(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=90)
        attention = attention_views(torch.rand(32, 26, 26)) if number % 2 else ()
        examples += [example(number + 50 * turn, image=file.getvalue(), attention=attention) for turn in range(4)]
    page = write_report(tmp_path / "report.html", [captioning(examples=examples)], examples_per_task=200)
    assert page.read_text("utf-8").count('class="card"') == 200
    assert page.stat().st_size < 5_000_000, "25 kB each"


def test_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one name"):
        page_of(tmp_path, captioning(), captioning())
