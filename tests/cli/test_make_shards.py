"""The command that makes shards: what goes in comes out, whatever is rejected is listed, and a kill changes nothing."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_files import LAYOUTS, as_csv, as_karpathy, as_list, rows, write_images
from PIL import Image
from shard_files import encode, image, write_shards, write_tar

from blip2_train.cli import make_shards
from blip2_train.cli.make_shards import main
from blip2_train.cli.terminal import run_command
from blip2_train.data.batches.images import decode_image
from blip2_train.data.prepare import journal
from blip2_train.data.prepare.opening import open_pairs
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.sources.source import PairSource
from blip2_train.errors import ShardError


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with twenty images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_images(tmp_path / "images", 20)
    return tmp_path


def make(workspace: Path, source: Path, *more: str, output: str = "shards", workers: int = 1) -> Path:
    """Make shards of the images of `place`; the folder they are in."""
    main([f"source={source}", f"output={workspace / output}", f"workers={workers}", *more])
    return workspace / output


def content(source: PairSource) -> list[tuple[bytes, tuple[str, ...], Any]]:
    records = [(source.read(number), source.details(number)) for number in range(len(source))]
    return [(record.image, record.captions, details.get("image_id")) for record, details in records]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def rejected(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "rejected.jsonl").read_text().splitlines()
    return [(entry["key"], entry["reason"]) for entry in map(json.loads, lines)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_goes_in_comes_out(layout: str, workspace: Path) -> None:
    file = LAYOUTS[layout](workspace / "captions", rows(20, captions=2))
    where = [f"images={workspace / 'images'}"] + (["split=train"] if layout == "karpathy" else [])
    folder = make(workspace, file, "samples_per_shard=8", *where)
    given = open_pairs(str(file), str(workspace / "images"), "train" if layout == "karpathy" else None)
    assert content(ShardSource(str(folder), "made")) == content(given)
    index = json.loads((folder / "index.json").read_text())
    assert [shard["samples"] for shard in index["shards"]] == [8, 8, 4] and index["samples"] == 20
    assert {shard["file"]: shard["sha256"] for shard in index["shards"]}.items() <= digests(folder).items()
    assert index["bytes"] == sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert index["rejected"] == {} and rejected(folder) == []
    assert json.loads((folder / "00002_stats.json").read_text())["successes"] == 4
    with tarfile.open(folder / "00001.tar") as tar:
        assert tar.getnames()[:3] == ["000010.jpg", "000010.json", "000010.txt"]


def test_every_reason(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = workspace / "images"
    (images / "broken.jpg").write_bytes(image(size=(90, 80))[:300])
    (images / "small.jpg").write_bytes(image(size=(60, 9)))
    (images / "long.jpg").write_bytes(image(size=(61, 20)))
    (images / "square.jpg").write_bytes(image(size=(60, 20)))
    (images / "again.jpg").write_bytes((images / "p01.jpg").read_bytes())
    names = ["broken", "again", "small", "p01", "p02", "long", "p03", "p04", "square", "p05", "gone", "p06"]
    spoken = {"p02": " .!", "p06": "a \ud800 cat"}
    content = [{"image": f"{n}.jpg", "caption": spoken.get(n, "a cat"), "image_id": k} for k, n in enumerate(names)]
    content[0]["caption"] = ["a cat"]
    source = workspace / "captions.json"
    source.write_text(json.dumps(content))
    (workspace / "names.txt").write_text(
        f"{hashlib.sha256((images / 'p03.jpg').read_bytes()).hexdigest().upper()}\n9\n"
    )
    test = as_karpathy(workspace / "test", [("p04.jpg", "a cat", 700), ("again.jpg", "a cat", 701)])
    test.write_text(test.read_text().replace('"train"', '"test"', 1))
    exclude = [f"exclude=[{workspace / 'names.txt'},{test}]", "exclude_split=test"]
    folder = make(workspace, source, f"images={images}", "min_side=10", "max_aspect_ratio=3", *exclude)
    assert rejected(folder) == [
        ("broken.jpg", "unreadable image"),
        ("small.jpg", "too small"),
        ("p01.jpg", "duplicate"),
        ("p02.jpg", "empty caption"),
        ("long.jpg", "aspect ratio"),
        ("p03.jpg", "excluded"),
        ("p04.jpg", "excluded"),
        ("p05.jpg", "excluded"),
        ("gone.jpg", "missing image"),
        ("p06.jpg", "text is not Unicode"),
    ]
    assert [number for *_, number in content_of(folder)] == [1, 8]
    index = json.loads((folder / "index.json").read_text())
    assert index["rejected"]["excluded"] == 3 and index["rejected"]["duplicate"] == 1 and len(index["rejected"]) == 8
    assert "3 excluded" in capsys.readouterr().out
    kept = make(
        workspace,
        source,
        f"images={images}",
        "duplicates=keep",
        f"exclude={as_csv(workspace / 'no', [('x', '', 99)])}",
        output="all",
    )
    assert [number for *_, number in content_of(kept)] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert "none of the 2 excluded names was met" in capsys.readouterr().out


def content_of(folder: Path) -> list[tuple[bytes, tuple[str, ...], Any]]:
    return content(ShardSource(str(folder), "made"))


def shards_with_faults(workspace: Path) -> Path:
    """Three shards as img2dataset might leave them: repeated images, a member missing, the last one cut off."""
    folder = write_shards(workspace / "source", (30, 31, 12))
    extra = {"url": "https://example.org/1", "similarity": 0.31, "captions": ["a dog", " ", "a big dog"]}
    members = [("a.jpg", image((1, 2, 3))), ("a.json", json.dumps(extra)), ("b.jpg", image()), ("c.txt", "a")]
    write_tar(folder / "00003.tar", [*members, ("d.png", encode(Image.new("RGB", (9, 9)), "PNG")), ("d.txt", "a dot")])
    tail = (folder / "00002.tar").read_bytes()
    (folder / "00002.tar").write_bytes(tail[: len(tail) // 2])
    return folder


def test_the_number_of_processes_does_not_matter(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CHUNK", 7)
    source = shards_with_faults(workspace)
    one = make(workspace, source, "samples_per_shard=9", output="one")
    assert digests(make(workspace, source, "samples_per_shard=9", output="two", workers=3)) == digests(one)
    reasons = {reason for _, reason in rejected(one)}
    assert reasons == {"duplicate", "truncated shard", "missing text", "missing image"}
    made = ShardSource(str(one), "made")
    last = len(made) - 1
    assert made.read(last - 1).captions == ("a dog", "a big dog")
    known = {"original_width": 24, "original_height": 16, "exif": "{}"}
    assert made.details(last - 1) == {"url": "https://example.org/1", "similarity": 0.31} | known
    with tarfile.open(sorted(one.glob("*.tar"))[-1]) as tar:
        assert tar.getnames()[-3].endswith(".png")
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in tar} == {(0, 0, 0, 0o444)}


@pytest.mark.parametrize("resize", [None, 20])
def test_what_img2dataset_knew_of_the_original_stays(resize: int | None, workspace: Path) -> None:
    """An image that is encoded anew is upright, and its record says so; else file and record are as they were."""
    exif = json.dumps({"Image Make": "x", "Image Orientation": "Rotated 90 CW"})
    record = {"caption": "a cat", "url": "u", "width": 60, "height": 40, "exif": exif, "sha256": "old"}
    record |= {"original_width": 600, "original_height": 400, "similarity": 0.3}
    photograph = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    data = encode(photograph, "JPEG")
    write_tar(workspace / "source" / "0.tar", [("a.jpg", data), ("a.json", json.dumps(record)), ("a.txt", "a cat")])
    made = make(workspace, workspace / "source", *([] if resize is None else [f"resize={resize}"]))
    with tarfile.open(made / "00000.tar") as tar:
        members = {name.rpartition(".")[2]: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    known = json.loads(members["json"])
    assert (known["original_width"], known["original_height"], known["similarity"]) == (600, 400, 0.3)
    again = ShardSource(str(made), "made").read(0)
    if resize is None:
        assert members["jpg"] == data and known["exif"] == exif and (known["width"], known["height"]) == (40, 60)
    else:
        assert json.loads(known["exif"]) == {"Image Make": "x", "Image Orientation": "Horizontal (normal)"}
        assert (known["width"], known["height"]) == (20, 30) and decode_image(members["jpg"]).size == (20, 30)
    assert again.decoded().size == (known["width"], known["height"])


def killed_after(events: int, arguments: list[str]) -> int:
    """The exit code of a process that makes shards and is killed when it has shown its progress so many times."""

    def child() -> None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        left = [events]
        shown = make_shards.PhaseProgress.__call__

        def show(self: Any, *values: Any) -> None:
            shown(self, *values)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        make_shards.PhaseProgress.__call__ = show  # type: ignore[method-assign]
        os._exit(run_command(main, arguments))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def test_kills_change_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CHUNK", 16)
    source = shards_with_faults(workspace)
    whole = digests(make(workspace, source, "samples_per_shard=9", "duplicates=keep", output="whole"))
    folder = workspace / "killed"
    arguments = [f"source={source}", f"output={folder}", "samples_per_shard=9", "duplicates=keep", "workers=2"]
    kills, tampered = 0, False
    while (code := killed_after(2 + kills, arguments)) != 0:
        assert code == -signal.SIGKILL and not (folder / "index.json").exists()
        kills += 1
        assert kills < 20
        verdicts, notes = folder / ".preparing" / "verdicts.bin", folder / ".preparing" / "shards.jsonl"
        if not notes.exists():  # a row that was being written
            verdicts.write_bytes(verdicts.read_bytes() + b"half")
            with (folder / ".preparing" / "rejected.jsonl").open("a") as file:
                file.write('{"number": 60, "sou')
        elif not tampered:
            tampered = True
            (folder / "00000.tar").write_bytes((folder / "00000.tar").read_bytes().replace(b"cat", b"dog"))
            (folder / "00001.tar").unlink()
    assert kills >= 4 and tampered
    assert digests(folder) == whole
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert killed_after(1, arguments) == 0  # nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_a_source_that_changes_meanwhile_is_refused(workspace: Path) -> None:
    source = as_csv(workspace / "images" / "captions", rows(20))
    folder = workspace / "shards"
    arguments = [f"source={source}", f"output={folder}", "workers=1"]
    assert killed_after(1, arguments) == -signal.SIGKILL
    (workspace / "images" / "p07.jpg").write_bytes(image((9, 9, 9)))
    with pytest.raises(ShardError, match=r"p07.jpg changed while shards were made of it \(its image is another"):
        main(arguments)
    with pytest.raises(ShardError, match="made with resize None, now it is 8; give another output"):
        main([*arguments, "resize=8"])


def test_only_what_is_larger_is_resized(workspace: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 81, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "p00.jpg": encode(noise, "JPEG", exif=turned),
        "p01.jpg": encode(noise.resize((40, 20)), "PNG"),
        "p02.jpg": encode(noise.resize((24, 16)), "GIF"),
        "p03.jpg": encode(noise.resize((30, 20)), "WEBP"),
    }
    for name, data in files.items():
        (workspace / "images" / name).write_bytes(data)
    folder = make(workspace, as_list(workspace / "images" / "captions", rows(4)), "resize=20", "quality=80")
    with tarfile.open(folder / "00000.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar if not m.name.endswith("txt")}  # type: ignore[union-attr]
    images = {name: data for name, data in members.items() if not name.endswith("json")}
    assert [name.split(".")[1] for name in images] == ["jpg", "png", "png", "webp"]
    first, second, third, fourth = images.values()
    assert decode_image(first).size == (20, 32) and len(first) < len(files["p00.jpg"])
    assert (second, fourth) == (files["p01.jpg"], files["p03.jpg"])
    assert np.array_equal(decode_image(third), decode_image(files["p02.jpg"]))
    record = json.loads(next(data for name, data in members.items() if name.endswith("0.json")))
    assert [record[k] for k in ("width", "height", "original_width", "original_height")] == [20, 32, 50, 81]
    assert record["sha256"] == hashlib.sha256(first).hexdigest()


def filled(workspace: Path) -> None:
    (workspace / "shards").mkdir()
    (workspace / "shards" / "mine.txt").touch()


def all_empty(workspace: Path) -> None:
    as_csv(workspace / "captions", [("p00.jpg", "...", 1)])


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (None, ["source=gone.csv"], "annotation file gone.csv does not exist"),
        (None, ["source=gone"], "there is no file or folder gone"),
        (None, ["source=gone.parquet"], "there is no file gone.parquet"),
        (None, ["images=gone"], "image folder gone does not exist"),
        (None, ["exclude=gone.txt"], "list of excluded images gone.txt cannot be read"),
        (None, ["exclude_split=test"], "exclude_split chooses among the images of exclude="),
        (None, ["sample_per_shard=9"], "no setting 'sample_per_shard'; did you mean 'samples_per_shard'?"),
        (None, ["samples_per_shard=many"], "samples_per_shard=many: expected a whole number"),
        (None, ["samples_per_shard=0"], "samples_per_shard must be at least 1, got 0"),
        (None, ["duplicates=no"], "duplicates=no: expected one of drop, keep"),
        (None, ["workers=0"], "workers must be at least 1"),
        (None, ["resize="], "resize has no value"),
        (filled, [], "shards is not empty; give another output"),
        (all_empty, [], "no sample of captions can be used; the reasons are in"),
    ],
)
def test_mistakes_are_one_line(
    spoil: Callable[[Path], None] | None,
    settings: list[str],
    message: str,
    workspace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = as_csv(workspace / "captions", rows(3))
    if spoil is not None:
        spoil(workspace)
    given = dict(setting.split("=", 1) for setting in settings)
    usual = {
        "source": str(file),
        "output": str(workspace / "shards"),
        "images": str(workspace / "images"),
        "workers": "1",
    }
    if given.get("source", ".csv").endswith("gone"):
        del usual["images"]
    assert run_command(main, [f"{name}={value}" for name, value in (usual | given).items()]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and message in printed


def test_names_that_are_no_utf8_are_excluded_by_name(workspace: Path) -> None:
    """As `ls` writes them, and as JSON has them."""
    name, folder = os.fsdecode(b"caf\xe9.jpg"), workspace / "named"
    folder.mkdir()
    for number, stem in enumerate((b"caf\xe9", b"other")):
        (folder / os.fsdecode(stem + b".jpg")).write_bytes((workspace / "images" / f"p{number:02d}.jpg").read_bytes())
        (folder / os.fsdecode(stem + b".txt")).write_text("a cat")
    entries = [{"image": name, "caption": "a"}, {"image": "other.jpg", "caption": "b"}]
    (workspace / "list.json").write_text(json.dumps(entries))
    (workspace / "names.txt").write_bytes(b"caf\xe9.jpg\n")
    (workspace / "no.json").write_text(json.dumps(entries[:1]))
    for number, (source, where) in enumerate(((folder, []), (workspace / "list.json", [f"images={folder}"]))):
        for listed in ("names.txt", "no.json"):
            made = make(workspace, source, *where, f"exclude={workspace / listed}", output=f"{number}{listed}")
            assert rejected(made) == [(r"caf\udce9.jpg", "excluded")]
    (workspace / "names.txt").write_text("a.jpg", encoding="utf-16")
    with pytest.raises(ShardError, match="is no text of lines; save it as UTF-8"):
        make(workspace, folder, f"exclude={workspace / 'names.txt'}", output="none")
