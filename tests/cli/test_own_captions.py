"""Captions of one's own train from the command line alone, and `check` says what is wrong with them before."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from caption_files import LAYOUTS, Row, as_csv, rows, write_images
from PIL import Image
from shard_files import encode, write_shards, write_tokenizer
from tiny_run import arguments

from blip2_train.cli.check import main as check
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main

TWO_STEPS = ("data=captions", "data.num_workers=0", "steps=2", "validate_every=2", "optim.warmup_steps=0")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with twenty images and a tokenizer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_tokenizer(tmp_path / "tokenizer")
    write_images(tmp_path / "images", 20)
    return tmp_path


def settings(workspace: Path, source: Path, *more: str) -> list[str]:
    """Arguments of a tiny run on a file of captions."""
    run = f"paths.run_dir={workspace / 'outputs' / 'run'}"
    return [*arguments(workspace / "outputs"), *TWO_STEPS, f"data.source={source}", run, *more]


def output(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_twenty_images_train(layout: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line only; beside the images, or elsewhere with the folder named."""
    beside = layout in ("csv", "coco")
    file = LAYOUTS[layout](workspace / ("images" if beside else ".") / "captions", rows(20, captions=2))
    more = [] if beside else [f"data.images={workspace / 'images'}"]
    more += ["data.split=train"] if layout == "karpathy" else []
    assert run_command(main, settings(workspace, file, "verbose=true", *more)) == 0, output(capsys)
    assert "captions: 18 samples in 1 file" in output(capsys)
    results = json.loads((workspace / "outputs" / "run" / "results.json").read_text())
    assert results["steps"] == 2 and results["val/pairs"] == 2 and results["rejected_samples"] == 0
    assert run_command(check, settings(workspace, file, *more)) == 0
    assert "the data can be trained on" in output(capsys)


def test_a_run_of_epochs_goes_on_to_more_of_them(
    workspace: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """18 images, batches of 4: one epoch is 5 steps, two are 9."""
    file = as_csv(workspace / "images" / "captions", rows(20))
    given = [word for word in settings(workspace, file, "validate_every=null") if not word.startswith("steps=")]
    folder = workspace / "outputs" / "run"
    assert run_command(main, [*given, "epochs=1"]) == 0
    assert "epochs=1: 1 x 18 samples / 4 a step = 5 steps" in caplog.text
    assert yaml.safe_load((folder / "config.yaml").read_text())["epochs"] == 1
    assert run_command(main, [*given, "epochs=2", f"resume_from={folder}"]) == 0
    assert "going on from step 5" in output(capsys)
    results = json.loads((folder / "results.json").read_text())
    assert results["steps"] == 9 and results["data/epochs_captions"] == 2


def text_of(workspace: Path, change: Callable[[list[Row]], list[Row]]) -> Path:
    return as_csv(workspace / "images" / "captions", change(rows(20)))


def no_caption_column(workspace: Path) -> Path:
    file = text_of(workspace, lambda content: content)
    file.write_text(file.read_text().replace("caption,", "words,", 1))
    return file


def missing_image(workspace: Path) -> Path:
    (workspace / "images" / "p03.jpg").unlink()
    return text_of(workspace, lambda content: content)


def empty_caption(workspace: Path) -> Path:
    return text_of(
        workspace, lambda content: [(path, "" if n == 3 else text, n) for n, (path, text, _) in enumerate(content)]
    )


def truncated(workspace: Path) -> Path:
    noise = Image.effect_noise((200, 200), 60).convert("RGB")
    (workspace / "images" / "p03.jpg").write_bytes(encode(noise, "JPEG")[:2000])
    return text_of(workspace, lambda content: content)


def duplicate_id(workspace: Path) -> Path:
    return text_of(
        workspace, lambda content: [(path, text, 7 if n < 2 else n + 10) for n, (path, text, _) in enumerate(content)]
    )


BROKEN: dict[str, tuple[Callable[[Path], Path], int, str]] = {
    "missing column": (
        no_caption_column,
        2,
        "captions.csv has no column 'caption' or 'text'.*'words'.*data.caption_column",
    ),
    "missing image": (missing_image, 0, "captions.csv, p03.jpg: missing image .line 5:.*put the image there"),
    "empty caption": (empty_caption, 0, "captions.csv, p03.jpg: empty caption .line 5:.*write words"),
    "truncated JPEG": (truncated, 0, "captions.csv, p03.jpg: unreadable image .line 5:.*truncated.*save the image"),
    "duplicate id": (
        duplicate_id,
        2,
        "captions.csv, line 3: image_id '7' of p01.jpg is that of p00.jpg .line 2.; give",
    ),
}
"""How the file is broken, the exit code of `check`, and what it says: file, row and fix."""


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_with_row_and_fix(
    name: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One broken sample of twenty is passed over in training, and listed; what concerns the whole file stops it."""
    breaking, code, words = BROKEN[name]
    file = breaking(workspace)
    trained = [*settings(workspace, file), "data.holdout=0", "validate_every=null", "steps=10"]
    assert run_command(check, ["--all", *trained]) == code
    assert re.search(words, output(capsys))
    assert run_command(main, trained) == code
    printed = output(capsys)
    if code:
        assert re.search(words, printed)
    else:
        (line,) = (workspace / "outputs" / "run" / "rejected.jsonl").read_text().splitlines()
        rejected = json.loads(line)
        assert rejected["source"] == str(file) and rejected["key"] == "p03.jpg" and "line 5" in rejected["detail"]
        assert f"1 {rejected['reason']}" in printed


def test_images_of_other_modes_are_turned_into_rgb(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, mode in enumerate(("L", "CMYK", "RGBA", "P", "1")):
        file = io.BytesIO()
        Image.new("RGB", (20, 20), (9, 99, 199)).convert(mode).save(file, "PNG" if mode not in ("CMYK",) else "JPEG")
        (workspace / "images" / f"p{number:02d}.jpg").write_bytes(file.getvalue())
    source = text_of(workspace, lambda content: content)
    assert run_command(check, ["--all", *settings(workspace, source)]) == 0
    _, heading, below = output(capsys).partition("  broken  ")
    assert heading and "broken" not in below
    assert run_command(main, settings(workspace, source, "steps=10", "validate_every=10")) == 0
    assert not (workspace / "outputs" / "run" / "rejected.jsonl").exists()


def test_check_counts_cuts_copies_and_shows_what_the_model_reads(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "images" / "p19.jpg").write_bytes((workspace / "images" / "p18.jpg").read_bytes())
    long = "a cat " * 12
    source = text_of(
        workspace, lambda content: [(path, long if n == 5 else text, n) for n, (path, text, _) in enumerate(content)]
    )
    assert (
        run_command(
            check, ["--all", "--samples", "2", *settings(workspace, source, "data.holdout=0", "validate_every=null")]
        )
        == 0
    )
    printed = output(capsys)
    assert re.search(r"captions\s+training\s+20\s+20\s+20\s+0\s+7 … 26\s+1 \(5\.0 %\)", printed), printed
    assert re.search(r"same image: .*line 20 \(training\) = .*line 21 \(training\)", printed)
    assert f"longest caption, 26 tokens: {long.strip()}" in printed
    assert printed.count("image 3 x 24 x 24") == 2
    (ids, *_), (reads, *_) = re.findall(r"  ids    (.*)", printed), re.findall(r"  input  '(.*)'", printed)
    assert (
        ids.startswith("2 ") and len(ids.split()) <= 14 and reads.startswith("[CLS] a cat") and reads.endswith("[SEP]")
    )
    assert not (workspace / "outputs").exists(), "a check leaves nothing behind"


def test_check_refuses_what_a_run_would_stop_at(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(0, 20, 3):
        (workspace / "images" / f"p{number:02d}.jpg").write_bytes(b"no image")
    source = text_of(workspace, lambda content: content)
    assert run_command(check, settings(workspace, source)) == 2
    assert "max_rejected_share" in output(capsys)


@pytest.mark.parametrize(
    ("foreign", "code", "shown"),
    [
        (0, 0, r"0\.0 %\n"),
        (1, 0, r"5\.0 %\n"),
        (4, 0, r"20\.0 %\n"),
        (5, 2, r"25\.0 %\n"),
        (20, 2, r"100\.0 %\n"),
    ],
)
@pytest.mark.parametrize("text", ["一 只 猫", "μια μικρή γάτα"])
def test_captions_of_another_language_than_the_tokenizer_s_are_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], foreign: int, code: int, shown: str, text: str
) -> None:
    """At most a fifth of the tokens may be unknown; what they are is shown before."""
    source = text_of(
        workspace,
        lambda content: [(path, text if n < foreign else "a red cat", n) for n, (path, _, _) in enumerate(content)],
    )
    assert run_command(check, ["--all", *settings(workspace, source, "data.holdout=0", "validate_every=null")]) == code
    printed = output(capsys)
    assert ("the data can be trained on" in printed) == (code == 0)
    assert "input  " in printed and re.search(rf"captions +(training .* )?{shown}", printed)
    if code:
        assert re.search(
            rf"captions \(training\): \d+\.\d % of 60 tokens are unknown .*{text}.*more than 20 %", printed
        )


def test_check_of_shards_and_of_labels(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shards(workspace / "shards", [9, 13])
    shards = ["data=shards", f"data.source={workspace / 'shards'}"]
    common = [*arguments(workspace / "outputs"), "experiment=demo_caption_opt", "data.num_workers=0", "init_from=null"]
    assert run_command(check, [*common, *shards, "collator.prompt=a photo of", "max_text_length=20"]) == 0
    printed = output(capsys)
    assert re.search(r"shards\s+training\s+20\s", printed) and re.search(r"shards\s+held out\s+2\s", printed)
    labels = re.findall(r"  label  '(.*)'", printed)
    reads = re.findall(r"  input  '(.*)'", printed)
    assert len(labels) == len(reads) == 3
    for read, label in zip(reads, labels, strict=True):
        assert read.endswith(label) and " photo of" in read and " photo of" not in label and label.endswith(r"\n")
