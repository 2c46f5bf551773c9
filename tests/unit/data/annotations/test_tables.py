"""Tables with any delimiter, and Flickr's own files as they are published."""

from __future__ import annotations

from pathlib import Path

import pytest
from caption_files import rows, write_images

from blip2_train.data.annotations.captions import read_captions, read_references
from blip2_train.data.annotations.questions import read_questions
from blip2_train.data.sources.config import SourceConfig, open_source
from blip2_train.errors import ShardError

ROWS = [("a.jpg", 'a sign, "stop" it | says .'), ("a.jpg", "again"), ("b.jpg", 'an " unbalanced quote')]
EXPECTED = [("a.jpg", (ROWS[0][1], "again")), ("b.jpg", (ROWS[2][1],))]


def flickr_tokens() -> str:
    return "".join(f"{name}#{index}\t{text}\n" for index, (name, text) in enumerate(ROWS))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results_20130124.token", flickr_tokens()),
        ("Flickr8k.token.txt", flickr_tokens().replace("\n", "\r\n")),
        ("flickr.token.tsv", "\ufeff" + flickr_tokens()),
        (
            "captions.txt",
            'image,caption\na.jpg,"a sign, ""stop"" it | says ."\na.jpg,again\nb.jpg,"an "" unbalanced quote"\n',
        ),
        (
            "results.csv",
            "image_name| comment_number| comment\n"
            + "".join(f"{name}| {n}| {text}\n" for n, (name, text) in enumerate(ROWS)),
        ),
    ],
)
def test_flickrs_own_files(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    images = read_captions(tmp_path / name)
    assert [(one.path, one.captions) for one in images] == EXPECTED
    assert images[1].row == ("line 4" if name in ("results.csv", "captions.txt") else "line 3")


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


def test_a_cell_may_hold_a_list_and_nulls_in_it_are_no_captions(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    names = [name for name, _, _ in rows(3)]
    (tmp_path / "t.csv").write_text(
        f'image,caption\n{names[0]},"[""a cat"", ""a dog""]"\n{names[1]},"[\'a cat\', None]"\n{names[2]},[sic] a cat\n'
    )
    source = open_source(SourceConfig(path=str(tmp_path / "t.csv")))
    assert [source.read(n).captions for n in range(3)] == [("a cat", "a dog"), ("a cat",), ("[sic] a cat",)]
    assert source.rejected == ()
    assert [one.captions for one in read_references(tmp_path / "t.csv")] == [source.read(n).captions for n in range(3)]
    (tmp_path / "l.jsonl").write_text(
        '{"image": "a.jpg", "caption": ["x", null]}\n{"image": "b.jpg", "caption": null}\n'
    )
    assert [one.captions for one in read_captions(tmp_path / "l.jsonl")] == [("x",), ()]


def test_parquet_is_read_without_the_images_in_it(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(**columns: object) -> Path:
        parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    for image in (["a.jpg"], [{"bytes": b"\xff" * 99, "path": "a.jpg"}]):
        file = write(image=image, caption=[["a cat", None]], image_id=[7])
        for read in (read_captions, read_references):
            assert [(one.path, one.captions, one.image_id) for one in read(file)] == [("a.jpg", ("a cat",), 7)]
    fields = {"question": ["is it?"], "question_id": [1], "image_id": [7], "answers": [[{"answer": "yes"}]]}
    for image in ([b"\xff"], [{"bytes": b"\xff", "path": None}]):
        with pytest.raises(ShardError, match=r"t\.parquet, row 1: image holds the image itself; make tar shards"):
            read_captions(write(image=image, caption=["a cat"]))
        (one,) = read_questions(write(image=image, **fields), strict=True)
        assert (one.question_id, one.image_id, one.image, one.answers) == (1, 7, "", ("yes",))
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(ShardError, match="is no readable Parquet file"):
        read_captions(tmp_path / "t.parquet")


def test_json_lines_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"image": "a.jpg", "caption": "x"}\n')
    assert [one.row for one in read_captions(tmp_path / "one.json")] == ["line 1"]


def test_a_line_without_a_header_is_not_repeated_whole(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("/9j/" + "A" * 100_000 + ",a cat\nb.jpg,a dog\n")
    with pytest.raises(ShardError, match=r"its columns are '/9j/A+\.\.\.A+', 'a cat': rename") as caught:
        read_captions(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(",".join(map(str, range(5000))) + "\n" + "x," * 4999 + "x\n")
    with pytest.raises(ShardError, match=r"'29', …: rename") as other:
        read_captions(tmp_path / "t.csv")
    assert max(len(str(caught.value)), len(str(other.value))) < 600 + len(str(tmp_path))
