"""What `predict.py` takes images from, and the tables that it writes."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from blip2_train.cli.predict.command import main
from blip2_train.cli.predict.images import ImageList
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ShardError
from blip2_train.pretrained import load_pretrained

SHORT = ["--max-new-tokens", "4", "--num-beams", "1"]
GOOD = ("a.png", "b.JPG", "d.webp", "below/e.png")


@pytest.fixture
def good(folder: Path) -> Path:
    for name in ("c.jpg", "._a.png", "notes.txt"):
        (folder / name).unlink()
    return folder


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write_forms(folder: Path, into: Path) -> dict[str, list[str]]:
    """The four images in every form, and the names that they have there."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    into.mkdir()
    contents = [(folder / name).read_bytes() for name in GOOD]
    paths = [str(folder / name) for name in GOOD]
    with tarfile.open(into / "s.tar", "w") as shard:
        for number, (name, content) in enumerate(zip(GOOD, contents, strict=True)):
            for ending, part in ((Path(name).suffix, content), (".txt", b"a caption"), (".json", b"{}")):
                member = tarfile.TarInfo(f"{number}{ending}")
                member.size = len(part)
                shard.addfile(member, io.BytesIO(part))
    (into / "some.csv").write_text("file_name,caption\n" + "".join(f"../images/{n},x\n" for n in (*GOOD, GOOD[0])))
    (into / "alone.jsonl").write_text("".join(json.dumps({"image": path}) + "\n" for path in paths))
    (into / "coco.json").write_text(json.dumps({"images": [{"id": n, "file_name": p} for n, p in enumerate(paths)]}))
    karpathy = [{"filepath": "../images", "filename": name, "sentences": []} for name in GOOD]
    (into / "karpathy.json").write_text(json.dumps({"images": karpathy}))
    (into / "inside.tsv").write_text("image\n" + "".join(base64.b64encode(c).decode() + "\n" for c in contents))
    table = pyarrow.table({"photo": paths, "image": [{"bytes": c, "path": None} for c in contents]})
    parquet.write_table(table, into / "rows.parquet")
    beside = [str(into / "../images" / name) for name in GOOD]
    return {
        "s.tar": [f"{into}/s.tar/{number}{Path(name).suffix}" for number, name in enumerate(GOOD)],
        "some.csv": beside,
        "alone.jsonl": paths,
        "coco.json": paths,
        "karpathy.json": beside,
        "inside.tsv": [f"{into}/inside.tsv, line {number}" for number in range(2, 6)],
        "rows.parquet": [f"{into}/rows.parquet, row {number}" for number in range(4)],
    }


def test_an_image_can_be_a_whole_shard_or_data_set(
    exports: dict[str, str], good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forms = write_forms(good, tmp_path / "forms")
    model, _ = load_pretrained(exports["stage1"])
    expected = model.match([good / name for name in GOOD], "a cat").itc[:, 0].tolist()
    match = ["match", "--model", exports["stage1"], "--text", "a cat", "--batch-size", "3"]
    main([*match, *(str(tmp_path / "forms" / name) for name in forms)])
    records = lines(capsys.readouterr().out)
    assert [line["image"] for line in records] == [name for names in forms.values() for name in names]
    assert [line["itc"] for line in records] == pytest.approx(expected * len(forms), abs=1e-5)
    (tmp_path / "shards").mkdir()
    (tmp_path / "forms/s.tar").rename(tmp_path / "shards/0.tar")
    main([*match, str(tmp_path / "shards"), str(tmp_path / "forms/rows.parquet"), "--image-column", "photo"])
    out, err = capsys.readouterr()
    assert [line["image"] for line in lines(out)][4:] == [str(good / name) for name in GOOD]
    assert "8 images in " in err and "passed over" not in err


def test_an_annotation_file_may_lie_elsewhere_than_its_images(
    exports: dict[str, str], good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "elsewhere" / "mine.csv"
    file.parent.mkdir()
    file.write_text("image,caption\n" + "".join(f"{name},a cat\n" for name in GOOD))
    match = ["match", "--model", exports["stage1"], "--text", "a cat", str(file)]
    main([*match, "--image-folder", str(good)])
    assert [line["image"] for line in lines(capsys.readouterr().out)] == [str(good / name) for name in GOOD]
    file.write_text(file.read_text() + f"{GOOD[0]},another caption of the same image\n")
    missing = rf"{len(GOOD)} of {len(GOOD)} images .* there is no file {file.parent / GOOD[0]}; if .* --image-folder"
    with pytest.raises(ShardError, match=missing):
        main(match)
    with pytest.raises(ShardError, match="image folder /no/such does not exist"):
        main([*match, "--image-folder", "/no/such"])


def test_a_shard_is_read_while_its_images_are_taken(good: Path, tmp_path: Path) -> None:
    write_forms(good, tmp_path / "forms")
    path = tmp_path / "forms/s.tar"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    images = ImageList([str(path)])
    assert images.count is None
    listed = list(images)
    assert not listed[0].error and "s.tar is cut or damaged from here on" in listed[-1].error


def test_paths_come_from_standard_input(
    exports: dict[str, str], good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (good / "below/more.txt").write_text("x")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{good}/a.png\n\n{good}/gone.png\n{good}/below\n"))
    assert run_command(main, ["match", "--model", exports["stage1"], "--text", "a cat", "-"]) == 2
    out, err = capsys.readouterr()
    assert [line["image"] for line in lines(out)] == [f"{good}/{name}" for name in ("a.png", "gone.png", "below/e.png")]
    assert lines(out)[1]["error"] == f"there is no image {good}/gone.png"
    assert "2 images in" in err and "1 passed over: 1 .txt file (more.txt)" in err
    assert "1 of 3 images could not be read, the other 2 are done" in err.splitlines()[-1]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert run_command(main, ["match", "--model", exports["stage1"], "--text", "a cat", "-"]) == 2
    assert "error: no image found in -; give" in capsys.readouterr().err


def test_an_address_that_is_not_allowed_is_an_image_that_cannot_be_read(
    exports: dict[str, str], good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = "http://127.0.0.1:9/a.png"
    (good / "urls.csv").write_text(f"url\n{at}?token=secret3\n{at}\n")
    addresses = [f"{at}?token=secret1", f"{at}?token=secret2", str(good / "a.png"), str(good / "urls.csv")]
    assert run_command(main, ["match", "--model", exports["stage1"], "--text", "a cat", *addresses]) == 2
    out, err = capsys.readouterr()
    records, names = lines(out), [record["image"] for record in lines(out)]
    assert names[2] == addresses[2] and names[4] == at and "4 of 5 images could not be read" in err
    assert ["error" in record for record in records] == [True, True, False, True, True]
    assert all(name.startswith(f"{at}?…") for name in (*names[:2], names[3])) and len({*names}) == 5
    assert "secret" not in out + err


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_ending_decides_the_format(exports: dict[str, str], folder: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"out.{ending}"
    texts = ["--text", "a cat", "--text", 'a "dog", or two']
    match = ["match", "--model", exports["stage1"], *texts, "--batch-size", "2", str(folder)]
    assert run_command(main, [*match, "--output", str(output)]) == 2
    assert run_command(main, [*match, "--output", str(tmp_path / "out.jsonl")]) == 2
    expected = lines((tmp_path / "out.jsonl").read_text())
    columns = ["image", "text", "itc", "itm", "error"]
    if ending == "csv":
        with output.open(newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        assert rows == [{name: str(line.get(name, "")) for name in columns} for line in expected]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(output)
        assert list(map(str, table.schema.types)) == ["string", "string", "double", "double", "string"]
        assert table.to_pylist() == [{name: line.get(name) for name in columns} for line in expected]
    assert not list(tmp_path.glob(".*unfinished"))


def test_a_table_has_a_row_for_each_image_and_a_column_for_each_prompt(
    exports: dict[str, str], good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a drawing of\n")
    prompts = ["--prompt", "a photo of", "--prompts", str(tmp_path / "prompts.txt")]
    caption = ["caption", "--model", exports["opt"], *SHORT, *prompts, str(good)]
    main(caption)
    records = lines(capsys.readouterr().out)
    assert [(Path(line["image"]).name, line["prompt"]) for line in records[:3]] == [
        ("a.png", "a photo of"), ("a.png", "a drawing of"), ("b.JPG", "a photo of"),
    ]  # fmt: skip
    model, _ = load_pretrained(exports["opt"])
    alone = model.caption(good / "b.JPG", prompt="a photo of", max_new_tokens=4, num_beams=1)[0]
    assert records[2]["caption"] == alone
    main([*caption, "--table", "--output", str(tmp_path / "t.csv")])
    with (tmp_path / "t.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "caption: a photo of", "caption: a drawing of", "error"]
    assert [row[1:3] for row in rows] == [[records[n]["caption"], records[n + 1]["caption"]] for n in range(0, 8, 2)]
    main(["match", "--model", exports["stage1"], "--text", "a cat", "--text", "a dog", "--table", str(good / "a.png")])
    (row,) = lines(capsys.readouterr().out)
    assert list(row) == ["image", "itc: a cat", "itm: a cat", "itc: a dog", "itm: a dog"]


def test_several_texts_of_each_image_have_numbers(
    exports: dict[str, str], good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, short = [str(good / "a.png"), str(good / "b.JPG")], ["--max-new-tokens", "4"]
    main(["caption", "--model", exports["opt"], *short, "--num-beams", "3", "--num-return-sequences", "2", *files])
    records = lines(capsys.readouterr().out)
    assert [(line["image"], line["number"]) for line in records] == [(file, n) for file in files for n in (1, 2)]
    model, _ = load_pretrained(exports["opt"])
    expected = model.caption(files, max_new_tokens=4, num_beams=3, num_return_sequences=2)
    assert [line["caption"] for line in records] == expected
    sampling = ["--sample", "--top-k", "3", "--num-return-sequences", "2", "--seed", "5"]
    questions = ["--question", "what?", "--question", "where?"]
    main(["answer", "--model", exports["opt"], *short, *sampling, *questions, "--as-typed", "--table", files[0]])
    (row,) = lines(capsys.readouterr().out)
    options = {"max_new_tokens": 4, "do_sample": True, "top_k": 3, "num_return_sequences": 2, "seed": 5, "clean": False}
    options["batch_size"] = 1  # which sampling depends on
    names = [f"answer: {question}, {number}" for question in ("what?", "where?") for number in (1, 2)]
    assert {name: row[name] for name in names} == dict(
        zip(names, model.answer(files[0], ["what?", "where?"], **options), strict=True)
    )
    assert run_command(main, ["caption", "--model", exports["opt"], "--num-return-sequences", "6", *files]) == 2
    assert "num_return_sequences 6 needs as many beams" in capsys.readouterr().err
    assert run_command(main, ["caption", "--model", exports["opt"], "--top-k", "3", *files]) == 2
    assert "top_k 3 changes nothing without" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("name,caption\nx,y\n", "a.csv", "has no column 'image' or .* pass --image-column=<column>"),
        ('{"questions": []}', "a.json", "has no list of images"),
        ("no parquet", "a.parquet", "is no readable Parquet file"),
        ("no tar", "a.tar", "a.tar is cut or damaged from here on"),
        ('{"image": 3}\n', "a.jsonl", "line 1 holds neither a path nor an image"),
        ('image\n"data:image/png;base64,x"\n', "a.csv", "is no image that can be read .no base64"),
        ("image\n", "a.csv", "no image found in .*a.csv"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_data_set_that_cannot_be_read_is_one_line(
    exports: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, name: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    assert run_command(main, ["match", "--model", exports["stage1"], "--text", "a cat", str(tmp_path / name)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(words, errors[0]), errors
