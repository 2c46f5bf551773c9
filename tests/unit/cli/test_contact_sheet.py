"""The page of `check`: images and captions, what was rejected and why; nothing of the data runs or is fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from caption_files import as_csv, rows, write_images
from shard_files import write_tokenizer
from tiny_run import arguments

from blip2_train.cli.check import main as check
from blip2_train.cli.terminal import run_command

BAD = "<script>alert(1)</script> a cat"


class Elements(HTMLParser):
    """The tags of a page, and all addresses in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.addresses = set[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images: one is damaged, one missing, one a copy; captions with markup, unknown words and many words."""
    folder = tmp_path_factory.mktemp("own")
    write_tokenizer(folder / "tokenizer")
    write_images(folder / "images", 20)
    (folder / "images" / "p03.jpg").write_bytes(b"<b>no image</b>")
    (folder / "images" / "p04.jpg").unlink()
    (folder / "images" / "p06.jpg").write_bytes((folder / "images" / "p07.jpg").read_bytes())
    content = rows(20)
    texts = {3: "a cat", 8: BAD, 9: "a cat " * 12, 10: "a 猫"}
    as_csv(folder / "images" / "captions", [(path, texts.get(n, text), n) for n, (path, text, _) in enumerate(content)])
    return folder


@pytest.fixture(scope="module")
def checked(own: Path) -> tuple[int, str]:
    """The exit code, and the page."""
    given = [word for word in arguments(own / "outputs") if not word.startswith("steps=")]
    data = ["data=captions", f"data.source={own / 'images' / 'captions.csv'}", "data.holdout=0", "validate_every=null"]
    sheet = own / "pages" / "sheet.html"
    code = run_command(check, [*given, *data, "data.num_workers=0", "steps=900", f"sheet={sheet}"])
    return code, sheet.read_text("utf-8")


def test_it_is_written_also_if_a_run_would_stop(checked: tuple[int, str]) -> None:
    code, page = checked
    assert code == 2, "two of twenty samples are broken, more than data.max_rejected_share"
    assert page.startswith("<!doctype html>") and page.count("<article") == 18


def test_images_are_inside_and_nothing_is_fetched_or_run(checked: tuple[int, str]) -> None:
    _, page = checked
    elements = Elements(page)
    assert all(address.startswith("data:image/webp;base64,") for address in elements.addresses)
    assert len(elements.addresses) == 18 + 1, "one for each, and one for the copies"
    assert not elements.tags & {"script", "link", "iframe", "object"}
    assert "Content-Security-Policy" in page and "url(" not in page and "@import" not in page


def test_captions_are_escaped_counted_and_marked(checked: tuple[int, str]) -> None:
    _, page = checked
    assert "&lt;script&gt;" in page
    assert '<mark title="not known to the tokenizer">猫</mark>' in page
    assert "26 tokens, cut to 14" in page


def test_what_was_rejected_is_listed_with_reason_and_fix(checked: tuple[int, str]) -> None:
    _, page = checked
    listed = re.findall(r"<tr><td class=\"data\">captions.csv</td>(.*?)</tr>", page)
    assert len(listed) == 2
    assert "p03.jpg" in listed[0] and "unreadable image" in listed[0] and "save the image again" in listed[0]
    assert "p04.jpg" in listed[1] and "missing image" in listed[1] and "put the image there" in listed[1]
    assert "1 image lies under several names" in page and "line 8 (training) = captions.csv, line 9 (training)" in page


def test_doubts_stand_above(checked: tuple[int, str]) -> None:
    _, page = checked
    assert "900 steps of 4 are 180 epochs of its 20 samples" in page


def test_another_kind_of_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(check, ["experiment=demo_stage1", "sheet=data.csv"]) == 2
    assert "sheet is an HTML page: sheet=<file>.html, got 'data.csv'" in capsys.readouterr().err
