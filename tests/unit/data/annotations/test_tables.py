"""Tables with any delimiter, and Flickr's own files as they are published."""

from __future__ import annotations

from pathlib import Path

import pytest
from caption_files import rows, write_pictures

from blip2_train.data.annotations.captions import read_captions
from blip2_train.data.source_config import SourceConfig, open_source
from blip2_train.errors import ShardError

SAID = [("a.jpg", 'a sign, "stop" it | says .'), ("a.jpg", "again"), ("b.jpg", 'an " unbalanced quote')]
WANTED = [("a.jpg", (SAID[0][1], "again")), ("b.jpg", (SAID[2][1],))]


def flickr_tokens() -> str:
    return "".join(f"{name}#{number}\t{text}\n" for number, (name, text) in enumerate(SAID))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results_20130124.token", flickr_tokens()),
        ("Flickr8k.token.txt", flickr_tokens().replace("\n", "\r\n")),
        ("flickr.token.tsv", "\ufeff" + flickr_tokens()),
        (
            "results.csv",
            "image_name| comment_number| comment\n"
            + "".join(f"{name}| {n}| {text}\n" for n, (name, text) in enumerate(SAID)),
        ),
    ],
)
def test_flickrs_own_files(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    pictures = read_captions(tmp_path / name)
    assert [(one.path, one.captions) for one in pictures] == WANTED
    assert pictures[1].row == ("line 4" if name == "results.csv" else "line 3")


def test_the_line_of_flickr30k_without_its_second_pipe(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text(
        "image_name| comment_number| comment\n21.jpg| 3| A dog .\n21.jpg| 4   A dog runs across the grass .\n"
    )
    (one,) = read_captions(file)
    assert one.captions == ("A dog .", "A dog runs across the grass .")
    file.write_text(file.read_text() + "no more\n")
    with pytest.raises(ShardError, match=r"results\.csv, line 4: 'no more' is not like the lines before"):
        read_captions(file)


def test_pipes_with_other_columns_and_blanks_behind_delimiters(tmp_path: Path) -> None:
    for name, content in (("p.csv", "image| caption\na.jpg| x, y\n"), ("b.csv", 'image, caption\na.jpg, "x, y"\n')):
        (tmp_path / name).write_text(content)
        (one,) = read_captions(tmp_path / name)
        assert (one.path, one.captions) == ("a.jpg", ("x, y",))


def test_a_cell_may_hold_a_list_and_nulls_are_blank(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    names = [name for name, _, _ in rows(3)]
    (tmp_path / "t.csv").write_text(
        f'image,caption\n{names[0]},"[""a cat"", ""a dog""]"\n{names[1]},"[\'a cat\', None]"\n{names[2]},[sic] a cat\n'
    )
    source = open_source(SourceConfig(path=str(tmp_path / "t.csv")))
    assert [source.read(n).captions for n in range(3)] == [("a cat", "a dog"), ("a cat", ""), ("[sic] a cat",)]
    assert [one.detail for one in source.rejected] == ["line 3: caption 2 of 2 is blank"]
    (tmp_path / "l.jsonl").write_text(
        '{"image": "a.jpg", "caption": ["x", null]}\n{"image": "b.jpg", "caption": null}\n'
    )
    assert [one.captions for one in read_captions(tmp_path / "l.jsonl")] == [("x", ""), ()]
