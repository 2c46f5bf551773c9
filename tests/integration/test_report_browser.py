"""The page in a real browser: images are there, scores can be seen, filters filter, nothing hostile runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import HOW_TO_INSTALL, Browser, find_browser
from report_cases import captioning, example, vqa

from blip2_train.evaluation.report.content import WordView
from blip2_train.evaluation.report.page import write_report

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=HOW_TO_INSTALL)
VISIBLE = "[...document.querySelectorAll('.card')].filter((card) => card.checkVisibility())"
COUNT = f"{VISIBLE}.length"
SCORES = f"{VISIBLE}.map((card) => Number(card.dataset.score))"
HOSTILE = (
    '</script><script>document.title = "taken"</script><img src=x onerror="document.title=`taken`"> \u2028 & "\'<b>'
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    scores = {f"out-domain/{name}": 0.5 for name in ("bleu_1", "bleu_2", "bleu_3", "meteor", "rouge_l")}
    wide = captioning(9, scores={**captioning().scores, **scores})
    return write_report(folder / "report.html", [wide, vqa(4)], title="A trial")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM) as opened:
        yield opened


def type_into(browser: Browser, field: str, value: str) -> None:
    """What the keyboard and the mouse cause: a new value, and an event that bubbles."""
    browser.run(
        f"(() => {{ const field = document.querySelector('[name={field}]'); field.value = {value!r}; "
        "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_images_are_decoded_and_scores_can_be_seen(browser: Browser, page: Path) -> None:
    browser.requests.clear()
    browser.open(page)
    sizes = browser.run("[...document.querySelectorAll('img.image')].map((image) => image.naturalWidth)")
    assert sizes == [60] * 13
    heats = browser.run("[...document.querySelectorAll('img.heat')].map((image) => image.naturalWidth)")
    assert len(heats) == 24 and min(heats) > 0, "four cards with attention, six views each"
    table = browser.run(
        "[...document.querySelectorAll('td')].filter((c) => c.checkVisibility()).map((c) => c.innerText)"
    )
    assert "1.214 · 121.4" in table and "75.0" in table and "—" in table
    assert browser.run("document.querySelector('.missing').innerText") == "SPICE: SPICE lacks its models"
    assert [address for address in browser.requests if not address.startswith("data:")] == [page.as_uri()]
    assert browser.problems == []


def test_the_heat_lies_exactly_over_its_image(browser: Browser, page: Path) -> None:
    browser.open(page, "#attention=on")
    boxes = browser.run(
        "[...document.querySelectorAll('.stage')].filter((s) => s.querySelector('.heat')).map((stage) => "
        "['.image', '.heat:not([hidden])'].map((which) => { const box = stage.querySelector(which)"
        ".getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; }))"
    )
    assert len(boxes) == 4
    for image, heat in boxes:
        assert image == heat and image[2] > 100
        assert image[2] / image[3] == pytest.approx(60 / 40, rel=0.01)


def test_an_address_opens_a_filtered_view(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run(COUNT) == 13
    assert browser.run("document.getElementById('count').value") == "13 of 13 examples"
    browser.open(page, "#task=nocaps&min=0.25&max=0.6")
    assert browser.run(SCORES) == [0.6, 0.5, 0.4, 0.3]
    browser.open(page, "#task=nocaps&domain=out-domain&sort=worst")
    assert browser.run(SCORES) == [0.2, 0.5, 0.8]
    browser.open(page, "#find=NUMBER+3%3F")
    assert browser.run(f"{VISIBLE}.map((card) => card.dataset.task)") == ["vqav2"]
    browser.open(page, "#task=there-is-none")
    assert browser.run(COUNT) == 13
    browser.open(page, "#find=there-is-none")
    assert browser.run(COUNT) == 0
    assert browser.run("document.getElementById('none').checkVisibility()")


def test_filters_follow_the_hand_and_write_the_address(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("document.getElementById('scores').disabled"), "CIDEr and accuracy cannot be compared"
    type_into(browser, "task", "vqav2")
    assert browser.run(SCORES) == [75, 50, 25, 0]
    assert not browser.run("document.getElementById('scores').disabled")
    type_into(browser, "min", "30")
    type_into(browser, "pick", "best")
    assert browser.run(SCORES) == [75, 50]
    assert browser.run("location.hash") == "#task=vqav2&pick=best&min=30"
    browser.run("document.querySelector('button[type=reset]').click()")
    assert browser.run(COUNT) == 13 and browser.run("location.hash") == ""
    browser.run(
        "document.querySelector('a.tile[href=\"#task=nocaps\"]').click(); new Promise((d) => setTimeout(d, 50))"
    )
    assert browser.run(COUNT) == 9


def test_attention_of_one_card_is_chosen_on_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    shown = (
        "[...document.querySelectorAll('.heat')].filter((layer) => layer.checkVisibility()).map((layer) => layer.alt)"
    )
    assert browser.run(shown) == []
    browser.run(
        "(() => { const choice = document.querySelector('.attention-choice'); choice.value = '1'; "
        "choice.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    (label,) = browser.run(shown)
    assert label.startswith("attention of the queries: strongest query, ≤ ")


def test_an_image_is_enlarged_with_what_lies_over_it(browser: Browser, page: Path) -> None:
    browser.open(page, "#attention=on")
    opened = "document.getElementById('zoomed').open"
    assert not browser.run(opened)
    card = "document.querySelector('.card:has(.heat)')"
    before = browser.run(f"{card}.querySelector('.stage').getBoundingClientRect().width")
    browser.run(f"{card}.querySelector('.zoom').click()")
    assert browser.run(opened)
    stage = "document.querySelector('#zoomed .stage')"
    assert browser.run(f"{stage}.getBoundingClientRect().width") > 2 * before
    assert browser.run(f"[...{stage}.querySelectorAll('.heat')].filter((one) => one.checkVisibility()).length") == 1
    browser.run("document.querySelector('#zoomed .close').click()")
    assert not browser.run(opened)
    browser.run("document.querySelector('.card:not(:has(.heat)) .zoom').click()")
    assert browser.run("document.querySelectorAll('#zoomed .stage').length") == 1 and browser.problems == []


def test_a_word_shows_where_it_looks(browser: Browser, tmp_path: Path) -> None:
    words = [WordView(word=word, heat=torch.rand(3, 4)) for word in ("red", "foxes")]
    examples = [example(1, prediction="red foxes", words=words), example(2, prediction="red foxes", words=words)]
    browser.open(write_report(tmp_path / "words.html", [captioning(examples=examples)]))
    shown = "[...document.querySelectorAll('.heat')].filter((one) => one.checkVisibility()).map((one) => one.alt)"
    press = "[...document.querySelectorAll('.word')].find((one) => one.textContent === 'foxes').click()"
    browser.run(press)
    assert browser.run(shown) == ["where the word “foxes” looks"], "on its own card only"
    assert browser.run("document.querySelectorAll('[aria-pressed=true]').length") == 1
    browser.run(press)
    assert browser.run(shown) == []


def test_nothing_lies_over_an_image_and_nothing_follows_the_reader(browser: Browser, page: Path) -> None:
    browser.open(page)
    covered = (
        "[...document.querySelectorAll('.stage')].flatMap((stage) => { const a = stage.getBoundingClientRect(); return "
        "[...document.querySelectorAll('select, label, #filters')].filter((one) => { const b = one"
        ".getBoundingClientRect(); return b.width > 1 && b.left < a.right && a.left < b.right && b.top < a.bottom && "
        "a.top < b.bottom; }); }).length"
    )
    assert browser.run(covered) == 0
    browser.run("document.documentElement.style.scrollBehavior = 'auto'; scrollTo(0, 1e6)")
    assert browser.run("document.getElementById('filters').getBoundingClientRect().bottom") < 0
    assert browser.run(covered) == 0


def test_an_image_at_the_top_leads_to_its_card(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(tmp_path / "many.html", [captioning(20)]))
    browser.run("document.querySelector('.glance a').click(); new Promise((done) => setTimeout(done, 50))")
    assert browser.run(SCORES) == [1.9]


def test_hostile_data_stay_text(browser: Browser, tmp_path: Path) -> None:
    hostile = example(1, id=HOSTILE, prediction=HOSTILE, references=[HOSTILE], question=HOSTILE, domain=HOSTILE)
    task = captioning(name=HOSTILE, title=HOSTILE, examples=[hostile], reasons={"spice": HOSTILE})
    path = write_report(tmp_path / "hostile.html", [task], title=HOSTILE)
    browser.open(path)
    assert browser.run("document.title").startswith("</script><script>")
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.querySelector('.prediction').textContent") == HOSTILE
    browser.run("document.querySelector('a.tile').click(); new Promise((done) => setTimeout(done, 50))")
    assert browser.run("document.querySelector('[name=task]').value") == HOSTILE and browser.run(COUNT) == 1
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'document.title=`taken`';"
        "document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=`taken`\">');"
        "new Promise((done) => setTimeout(done, 100))"
    )
    assert not browser.run("document.title").startswith("taken"), "the page's policy lets no other script run"


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_of_it_in_either_scheme(page: Path, dark: bool) -> None:
    assert PROGRAM is not None
    with Browser(PROGRAM, width=400, height=800, dark=dark) as phone:
        phone.open(page)
        assert phone.run("document.documentElement.scrollWidth") == 400, "nothing makes the page scroll sideways"
        box = "document.querySelector('.scrolls')"
        assert phone.run(f"{box}.scrollWidth - {box}.clientWidth") > 100, "this table is wider than a phone"
        assert phone.run(f"getComputedStyle({box}).backgroundImage").count("linear-gradient") == 4
        ground, ink = phone.run(
            "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
        )
        light = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in (ground, ink)]
        assert (light[0] < 60 and light[1] > 200) if dark else (light[0] > 200 and light[1] < 60)
