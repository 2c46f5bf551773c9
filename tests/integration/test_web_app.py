"""The web app through its real page in a browser: each tab once, errors as one line, and nothing from elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'blip2_train[app]'")
from app_page import AppPage, running_app
from browser import HOW_TO_INSTALL, Browser, find_browser
from demo_exports import write_exports

from blip2_train.app.asking import Reply, Talk
from blip2_train.app.examples import write_examples
from blip2_train.app.server import POLICY, Settings, served
from blip2_train.errors import CheckpointMismatch, ConfigError

PROGRAM = find_browser()
pytestmark = pytest.mark.slow
in_a_browser = pytest.mark.skipif(PROGRAM is None, reason=HOW_TO_INSTALL)
HOSTILE = '<img src=x onerror="document.title=`taken`"> ${document.title=`taken`}'


@dataclass(frozen=True, kw_only=True)
class App:
    """A running app, and what it was started with."""

    address: str
    exports: dict[str, str]
    images: Path


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    exports = write_exports(folder / "exports")
    write_examples(folder / "images", 6)
    (folder / "images" / "broken.jpg").write_bytes(b"no image")
    settings = Settings(
        models=(exports["stage1"], exports["opt"]),
        outputs=str(folder / "outputs"),
        folders=(str(folder / "images"),),
        port=0,
    )
    with running_app(settings) as address:
        yield App(address=address, exports=exports, images=folder / "images")


@pytest.fixture(scope="module")
def page(app: App) -> Iterator[AppPage]:
    assert PROGRAM is not None
    with Browser(PROGRAM) as browser:
        yield AppPage(browser, app.address)
        strange = [one for one in browser.requests if not one.startswith((app.address, "data:", "blob:", "about:"))]
        assert strange == [], "nothing is requested from elsewhere"
        assert browser.problems == []
        assert browser.run("document.title") == "BLIP-2", "no text of a result or an error was executed"


def printed(code: str, folder: Path) -> str:
    """What a shown program prints, run in the folder of the image."""
    output, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(code, "shown", "exec"), {})
    finally:
        os.chdir(before)
    return output.getvalue().strip()


@in_a_browser
def test_caption(page: AppPage, app: App) -> None:
    page.tab("caption")
    page.click("describe")
    assert page.until(".refused") == ["there is no image yet; drop one, or click on an example"]
    page.example(1)
    page.click("describe")
    (caption,) = page.until(".generated p")
    assert page.texts(".refused") == []
    assert printed(page.code(), app.images) == str([caption])


@in_a_browser
def test_ask(page: AppPage) -> None:
    page.tab("ask")
    page.example(2)
    first_question = page.field("question")
    assert first_question.endswith("?")
    page.click("ask")
    assert page.until(".message.bot")
    page.fill("question", HOSTILE)
    page.click("ask")
    page.wait("document.querySelectorAll('.message.user').length === 2")
    assert HOSTILE in page.texts(".message.user")[1] and first_question in page.texts(".message.user")[0]
    assert "turns=[(" in page.code(), "the second question came with the first round"
    page.browser.run("document.querySelector('#tab-ask button[aria-label=Clear]').click()")
    page.wait("document.querySelectorAll('.message.user').length === 0")
    page.fill("question", "why?")
    page.click("ask")
    page.wait("document.querySelectorAll('.message.bot').length === 1")
    assert "turns=[]" in page.code(), "what was cleared by the button of the list is forgotten, too"
    page.click("start anew")
    page.wait("document.querySelectorAll('.message.user').length === 0")


@in_a_browser
def test_a_conversation_that_is_cleared_as_its_answer_ends_stays_away(
    page: AppPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, ended, go_on = Talk.answered, threading.Event(), threading.Event()

    def held(talk: Talk, question: str, replies: Iterator[Reply]) -> Iterator[Reply | None]:
        yield from answered(talk, question, replies)
        ended.set()
        go_on.wait(60)  # then Gradio sends the last part once more

    monkeypatch.setattr(Talk, "answered", held)
    page.tab("ask")
    page.fill("question", "")
    page.example(2)
    page.wait(f"{page._one('label', 'question')}.querySelector('textarea').value")
    time.sleep(1.0)  # the change of the image ends a conversation, too
    page.click("ask")
    assert ended.wait(60) and page.until(".message.bot")
    page.click("start anew")
    page.wait("document.querySelectorAll('.message').length === 0")
    go_on.set()
    time.sleep(2.0)
    page.wait("document.querySelectorAll('.message').length === 0", 10)


@in_a_browser
def test_a_conversation_that_is_cleared_while_it_streams_stays_away(page: AppPage) -> None:
    page.tab("ask")
    page.fill("question", "")
    page.example(2)
    page.wait(f"{page._one('label', 'question')}.querySelector('textarea').value")
    page.click("settings")
    page.pick("sampling")
    for field, value in (("temperature", 2), ("most new tokens", 100), ("fewest", 100)):
        page.slide(field, value)
    # pressed as soon as a part of the answer is there, sooner than one who looks ten times a second could
    page.browser.run(
        "window.parts = 0; window.watch = setInterval(() => { const text = document.querySelector('.message.bot')"
        "?.innerText.trim(); if (text) { clearInterval(watch); parts = text.length; "
        "[...document.querySelectorAll('button')].find((one) => one.innerText.trim() === 'start anew').click(); } }, 3)"
    )
    page.click("ask")
    page.wait("window.parts > 0")
    page.wait("document.querySelectorAll('.message').length === 0")
    time.sleep(2.0)
    assert page.texts(".message") == [], "neither does what comes later bring it back"
    page.fill("question", "why?")
    page.click("ask")
    page.until(".message.bot")
    assert len(page.texts(".message.user")) == 1 and "turns=[]" in page.code()
    assert "do_sample=True" in page.code() and "temperature=2" in page.code(), "the settings were those above"


@in_a_browser
def test_match_and_where_the_model_looks(page: AppPage, app: App) -> None:
    page.tab("match")
    page.example(0)
    page.fill("texts, one in each line", f"a teapot\n{HOSTILE}\nred")
    page.click("match")
    bars = page.until(".scored")
    assert len(bars) == 3 and any(HOSTILE in bar for bar in bars)
    scores = [float(value) for value in page.texts(".bar .value")[1::2]]
    shown = [float(value) for value in re.findall(r"-?\d[\d.e+-]*", printed(page.code(), app.images))]
    assert all(any(abs(value - score) < 6e-4 for value in shown) for score in scores)
    page.fill("where does the model look for", "a teapot")
    page.click("look")
    assert page.images() == 2 and page.texts(".figures figcaption") == ["a", "teapot"]


@in_a_browser
def test_search(page: AppPage, app: App) -> None:
    page.tab("search")
    page.fill("text", "a teapot")
    page.click("search")
    assert page.images() == 6
    assert page.until(".noted") == ["6 images, 1 unreadable"]
    page.choose("folder of images", "/no/such/folder")
    page.click("search")
    (line,) = page.until(".refused")
    assert line == "there is no folder /no/such/folder; name a folder with images"


@in_a_browser
def test_compare(page: AppPage) -> None:
    page.tab("compare")
    page.example(3)
    page.click("compare")
    cells = page.until(".scrolls td")
    assert cells[0] == "caption" and "– (this is a generative model (stage 2))" in cells
    assert "– (this is an image-text model (stage 1))" in cells


@in_a_browser
def test_data(page: AppPage, tmp_path: Path, app: App) -> None:
    page.tab("data")
    page.click("look")
    assert page.images() == 12
    page.click("on ▶")
    page.wait("[...document.querySelectorAll('figcaption span')].some((one) => one.innerText === 'sample 12')")
    (tmp_path / "mine.csv").write_text(
        f'image,caption\nscene_0.jpg,a teapot\nbroken.jpg,"{HOSTILE.replace(chr(34), chr(39))}"\n'
    )
    page.choose("data set: shards, or an annotation file", str(tmp_path / "mine.csv"))
    page.fill("first sample", "0")
    page.fill("folder of the images, if not that of the file", str(app.images))
    page.click("look")
    page.wait("[...document.querySelectorAll('.rejected')].some((one) => one.innerText.includes('1 unreadable image'))")
    edges = page.browser.run("getComputedStyle(document.querySelector('#tab-data .scrolls')).backgroundImage")
    assert edges.count("linear-gradient") == 4, "a table that goes on has a shadow at its edge"


@in_a_browser
@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1280, True)])
def test_it_can_be_used_narrow_and_dark(width: int, dark: bool, app: App) -> None:
    assert PROGRAM is not None
    with Browser(PROGRAM, width=width, height=800, dark=dark) as browser:
        page = AppPage(browser, app.address)
        for tab in ("caption", "ask", "match", "search", "compare", "data"):
            page.tab(tab)
            assert browser.run("document.documentElement.scrollWidth") <= width, f"{tab} does not fit"
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        levels = [int(level) for level in ground.removeprefix("rgb(").removesuffix(")").split(",")[:3]]
        assert (sum(levels) < 300) is dark


def test_others_are_kept_out(app: App) -> None:
    with urllib.request.urlopen(app.address) as answer:
        assert answer.headers["Content-Security-Policy"] == POLICY
    named = urllib.request.Request(app.address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(named)


def test_uploads_are_limited_and_deleted(tmp_path: Path) -> None:
    def upload(address: str, size: int) -> str:
        body = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
            + bytes(size)
            + b"\r\n--x--\r\n"
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{address}/gradio_api/upload", body, headers)
        with urllib.request.urlopen(request) as answer:
            return str(answer.read().decode())

    with running_app(Settings(outputs=str(tmp_path), port=0)) as address:
        (path,) = json.loads(upload(address, 1000))
        assert Path(path).stat().st_size == 1000
        with pytest.raises(urllib.error.HTTPError, match="413"):
            upload(address, 21_000_000)
    assert not Path(path).exists() and not any(folder.exists() for folder in Path(path).parents[:3])


def test_what_is_wrong_at_the_start_is_one_error(tmp_path: Path) -> None:
    exports = write_exports(tmp_path / "exports")
    with pytest.raises(CheckpointMismatch, match="no/such"), served(Settings(models=("no/such",), port=0)):
        pass
    with served(Settings(models=(exports["opt"],), port=0)) as (_, address):
        port = int(address.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"port {port} cannot be used"), served(Settings(port=port)):
            pass


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_nothing_is_left(sent: signal.Signals, status: int, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "app.py"), "--port", "0", "--outputs", str(tmp_path)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline().startswith(b"open http://127.0.0.1:")
        assert len(list(tmp_path.glob("blip2_app_*"))) == 1
        time.sleep(1)  # until the server takes signals
        process.send_signal(sent)
        assert process.wait(60) == status
    assert list(tmp_path.glob("blip2_app_*")) == []
