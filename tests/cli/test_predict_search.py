"""`predict.py search` on what `predict.py embed` wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from blip2_train.cli.predict.command import main
from blip2_train.cli.terminal import run_command
from blip2_train.pretrained import load_pretrained

GOOD = ("a.png", "b.JPG", "d.webp", "below/e.png")


@pytest.fixture
def index(exports: dict[str, str], folder: Path, tmp_path: Path) -> str:
    path = str(tmp_path / "features.npz")
    main(["embed", "--model", exports["stage1"], "--output", path, *(str(folder / name) for name in GOOD)])
    return path


def test_images_are_retrieved_by_text_and_by_image(
    exports: dict[str, str], folder: Path, index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    (tmp_path / "texts.txt").write_text("two dogs\n")
    queries = ["--texts", str(tmp_path / "texts.txt"), "--image", str(folder / "d.webp"), "a cat"]
    main(["search", "--model", exports["stage1"], "--index", index, "--top", "2", *queries])
    out, err = capsys.readouterr()
    assert "4 images searched, queries: 3, " in err
    records = [json.loads(line) for line in out.splitlines()]
    assert [(line["query"], line["by"], line["rank"]) for line in records] == [
        ("a cat", "text", 1), ("a cat", "text", 2), ("two dogs", "text", 1), ("two dogs", "text", 2),
        (str(folder / "d.webp"), "image", 1), (str(folder / "d.webp"), "image", 2),
    ]  # fmt: skip
    itc = load_pretrained(exports["stage1"])[0].match([folder / name for name in GOOD], ["a cat"]).itc[:, 0]
    values, order = itc.sort(descending=True)
    assert [line["image"] for line in records[:2]] == [str(folder / GOOD[row]) for row in order[:2]]
    assert [line["similarity"] for line in records[:2]] == pytest.approx(values[:2].tolist(), abs=1e-5)
    assert (records[4]["image"], records[4]["similarity"]) == (str(folder / "d.webp"), pytest.approx(1, abs=1e-5))
    assert "itm" not in records[0]


def test_texts_are_retrieved_by_image_and_ranked_again(
    exports: dict[str, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("a cat\ntwo dogs\na red apple\n")
    path, model = str(tmp_path / "texts.safetensors"), ["--model", exports["stage1"]]
    main(["embed", *model, "--texts", str(tmp_path / "texts.txt"), "--output", path])
    output = tmp_path / "found.jsonl"
    options = ["--image", str(folder / "a.png"), "--top", "1", "--rerank", "3", "--faiss", "Flat"]
    main(["search", *model, "--index", path, *options, "--output", str(output)])
    assert capsys.readouterr().out == ""
    (record,) = map(json.loads, output.read_text().splitlines())
    itm = load_pretrained(exports["stage1"])[0].match(folder / "a.png", ["a cat", "two dogs", "a red apple"]).itm[0]
    assert record["text"] == ["a cat", "two dogs", "a red apple"][int(itm.argmax())]
    assert record["itm"] == pytest.approx(float(itm.max()), abs=1e-5)


def test_the_page_on_searching_holds_in_python(
    exports: dict[str, str],
    folder: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (root / "docs/search.md").read_text("utf-8"), flags=re.DOTALL)
    for name in ("c.jpg", "._a.png", "notes.txt"):
        (folder / name).unlink()
    monkeypatch.chdir(folder.parent)
    exec(code.replace("last:demo_stage1", exports["stage1"]).replace("*.jpg", "*.*"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith("images/") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to search for; write a text"),
        (["--rerank", "5", "a cat"], "--rerank 5 is less than --top 10"),
        (["--faiss", "Nonsense", "a cat"], "--faiss Nonsense: FAISS cannot build it"),
        (["--top", "0", "a cat"], "'0' is no whole number above 0"),
        ([""], "--text is empty"),
        (["..."], "is empty once cleaned"),
        (["--index", "gone.npz", "a cat"], "there is no index gone.npz; write one by"),
        (["--index", "{broken}", "a cat"], "neither .npz nor .safetensors"),
        (["--model", "{opt}", "a cat"], "search needs an image-text model"),
        (["--image", "{broken}"], "c.jpg is no image that can be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_clear_line(
    exports: dict[str, str],
    folder: Path,
    index: str,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    capsys.readouterr()
    filled = [one.format(**exports, broken=str(folder / "c.jpg")) for one in arguments]
    assert run_command(main, ["search", "--model", exports["stage1"], "--index", index, *filled]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("model: ")]
    assert len(errors) == 1 and re.search(words, errors[0]), errors
