"""Shards that are cut, joined, damaged or strangely named."""

from __future__ import annotations

import json
from pathlib import Path

from fault_test.desk import Desk
from fault_test.table import refused, row
from shard_files import image, sample, write_shards, write_tar

GROUP = "shards"


def source(path: object) -> str:
    return f"data.source={path}"


def own(desk: Desk, content: bytes | None = None) -> Path:
    """Shards of the row's own, all with this content."""
    folder = write_shards(desk.folder / "shards", [9, 4, 13])
    for path in folder.glob("*.tar") if content is not None else ():
        path.write_bytes(content or b"")
    return folder


def training(desk: Desk, content: bytes) -> list[object]:
    return desk.training(source(own(desk, content)))


refused(GROUP, "a folder that is not there", "train", lambda d: d.training(source(d.folder / "none")), "none")
refused(GROUP, "a pattern that matches nothing", "check", lambda d: d.training(source(d.folder / "*.tarr")), "tarr")
refused(GROUP, "files that are no tar files", "train", lambda d: training(d, b"this is no tar" * 99), "usable|tar")
refused(GROUP, "empty files", "train", lambda d: training(d, b""), "usable|tar|empty")
refused(
    GROUP,
    "files that are no tar files, to make_shards",
    "make_shards",
    lambda d: [f"source={own(d, b'x' * 999)}", f"output={d.folder / 'made'}"],
    r"usable|tar|sample",
)


@row(GROUP, "every shard is cut in its first sample")
def all_cut(desk: Desk) -> str:
    folder = own(desk)
    for path in folder.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:700])
    return desk.refused("train", *desk.training(source(folder)), words="truncated|usable")


@row(GROUP, "one shard is cut in the middle")
def one_cut(desk: Desk) -> str:
    folder = own(desk)
    last = folder / "00002.tar"
    last.write_bytes(last.read_bytes()[:12_000])
    ended = desk.well("check", *desk.training(source(folder)), words="truncated")
    return f"{ended.code}, counted"


@row(GROUP, "shards joined by cat")
def joined(desk: Desk) -> str:
    folder = own(desk)
    both = b"".join(path.read_bytes() for path in sorted(folder.glob("*.tar")))
    for path in folder.glob("*.tar"):
        path.unlink()
    (folder / "all.tar").write_bytes(both)
    ended = desk.well("check", *desk.training(source(folder)), words="26|24")
    return f"{ended.code}, all are read"


@row(GROUP, "images that are damaged, a third of all")
def damaged(desk: Desk) -> str:
    names = [f"{n:09d}" for n in range(30)]
    broken = [[(f"{n}.jpg", image()[:90]), (f"{n}.txt", "a cat")] if i % 3 else sample(n) for i, n in enumerate(names)]
    write_tar(desk.folder / "s" / "0.tar", [member for members in broken for member in members])
    return desk.refused(
        "train", *desk.training(source(desk.folder / "s"), "steps=40", "validate_every=null"), words="unreadable"
    )


@row(GROUP, "sidecars that are no JSON")
def sidecars(desk: Desk) -> str:
    names = [f"{n:09d}" for n in range(30)]
    members = [(f"{n}{end}", data) for n in names for end, data in ((".jpg", image()), (".json", "{caption"))]
    write_tar(desk.folder / "s" / "0.tar", members)
    return desk.refused("train", *desk.training(source(desk.folder / "s"), "validate_every=null"), words="json")


@row(GROUP, "members that lead out of the shard")
def traversal(desk: Desk) -> str:
    bad = [
        ("../../outside.jpg", image()),
        ("../../outside.txt", "a cat"),
        ("/etc/x.jpg", image()),
        ("/etc/x.txt", "b"),
    ]
    write_tar(desk.folder / "s" / "0.tar", [*bad, *(m for n in range(24) for m in sample(f"{n:09d}"))])
    made = desk.folder / "made"
    ended = desk.well(
        "make_shards", f"source={desk.folder / 's'}", f"output={made}", "workers=1", "duplicates=keep", words="unsafe"
    )
    assert not list(desk.folder.parent.glob("outside*")) and json.loads((made / "index.json").read_text())
    return f"{ended.code}, refused and counted"


@row(GROUP, "members whose names hold line ends and escapes")
def odd_names(desk: Desk) -> str:
    name = "a\nerror: nothing\x1b[2J\u202e"
    odd = [(f"{name}{n}.jpg", b"no image") if end else (f"{name}{n}.txt", "a cat") for n in range(3) for end in (0, 1)]
    write_tar(desk.folder / "s" / "0.tar", [*odd, *(m for n in range(24) for m in sample(f"{n:09d}"))])
    return desk.refused("check", "--all", *desk.training(source(desk.folder / "s")), words="unreadable image")


@row(GROUP, "an index of shards that is cut")
def cut_index(desk: Desk) -> str:
    made = desk.folder / "made"
    desk.well("make_shards", f"source={desk.world.shards}", f"output={made}", "workers=1", "duplicates=keep")
    index = made / "index.json"
    index.write_text(index.read_text()[:-40])
    return desk.refused("train", *desk.training(source(made)), words=r"index\.json")


@row(GROUP, "a bit of an index of shards is flipped")
def flipped_index(desk: Desk) -> str:
    made = desk.folder / "made"
    desk.well("make_shards", f"source={desk.world.shards}", f"output={made}", "workers=1", "duplicates=keep")
    index = made / "index.json"
    text = index.read_text()
    at = text.index('"samples": ') + len('"samples": ')
    index.write_text(text[:at] + str(9 - int(text[at])) + text[at + 1 :])
    return desk.refused("train", *desk.training(source(made)), words=r"index")


@row(GROUP, "a shard is replaced by one of equally many samples before a run goes on")
def replaced(desk: Desk) -> str:
    folder = own(desk)
    desk.well("train", *desk.training(source(folder), "callbacks.checkpoint.keep=3"))
    (folder / "00001.tar").unlink()
    write_tar(folder / "00001.tar", [m for n in range(4) for m in sample(f"other{n}", "a blue dog on the q")])
    earlier = desk.run_folder() / "checkpoints" / "step_0000003.ckpt"
    return desk.refused("train", *desk.training(source(folder), f"resume_from={earlier}"), words="data|shard|samples")


@row(GROUP, "a line that is no address in a list of captions to make shards of")
def no_source(desk: Desk) -> str:
    (desk.folder / "list.csv").write_text("image,caption\nnone.jpg,a cat\n")
    given = (f"source={desk.folder / 'list.csv'}", f"output={desk.folder / 'made'}", "workers=1")
    ended = desk.run("make_shards", *given)
    return desk.one_line(ended, "none|missing|no ")
