"""Shards that are read one after the other give what an index of them gives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from shard_files import image, sample, write_shards, write_tar, write_web_shard

from blip2_train.data.sequential.draw_order import DrawOrder
from blip2_train.data.sequential.pipes import PipeShard
from blip2_train.data.sequential.shard_stream import AnyShard, StreamedSample, stream_samples
from blip2_train.data.shards.tar import scan_shard
from blip2_train.data.storage.remote import Storage
from blip2_train.types import RejectedSample


def streamed(shard: AnyShard) -> tuple[list[StreamedSample], list[RejectedSample]]:
    samples_read = list(stream_samples(shard, Storage()))
    rejected = [one for one in samples_read if isinstance(one, RejectedSample)]
    return [one for one in samples_read if isinstance(one, StreamedSample)], rejected


def indexed(shard: Path) -> tuple[list[StreamedSample], list[RejectedSample]]:
    rows, rejected = scan_shard(shard)
    data = shard.read_bytes()

    def content(row: np.void, kind: str) -> bytes | None:
        return None if row[kind] < 0 else data[row[kind] : row[kind] + row[f"{kind}_size"]]

    return [
        StreamedSample(row["key"].decode(), content(row, "picture") or b"", content(row, "text"), content(row, "json"))
        for row in rows
    ], rejected


def assert_same(shard: Path, details: bool = True) -> None:
    samples, rejected = streamed(shard)
    expected, others = indexed(shard)
    assert samples == expected
    assert {(r.key, r.reason) for r in rejected} == {(r.key, r.reason) for r in others}
    if details:
        assert {r.detail for r in rejected} == {r.detail for r in others}


def test_a_shard_of_img2dataset(tmp_path: Path) -> None:
    write_web_shard(tmp_path)
    assert_same(tmp_path / "00000.tar")
    assert len(streamed(tmp_path / "00000.tar")[0]) == 13


@pytest.mark.parametrize(
    "members",
    [
        [("a.v1.jpg", b"1"), ("a.v1.txt", "x"), ("a.v2.jpg", b"2"), ("a.v2.txt", "y")],
        [("f/a.jpg", b"1"), ("f/a.txt", "x"), ("g/a.jpg", b"2"), ("g/a.txt", "y")],
        [("a.jpg", b"1"), ("b.txt", "x"), ("c.jpg", b"2"), ("c.txt", "y")],
        [("a.jpg", b"1"), ("a.jpg", b"2"), ("a.txt", "x"), ("b.jpg", b"2"), ("b.txt", "y")],
        [("../a.jpg", b"1"), ("/b.jpg", b"1"), ("c.JPG", b"2"), ("c.TXT", "y"), ("README", "no sample")],
        [("a.seg.png", b"1"), ("a.json", '{"caption": "x"}'), ("__a__", "meta"), ("b.jpg", b""), ("b.txt", "")],
        [("caf\u00e9" * 40 + ".jpg", b"1"), ("caf\u00e9" * 40 + ".txt", "x")],
        [("zeros.jpg", bytes(5000)), ("zeros.txt", "x"), ("more.jpg", bytes(40_000)), ("more.txt", "x")],
        [],
    ],
)
def test_names_and_what_they_make(tmp_path: Path, members: list[tuple[str, bytes | str]]) -> None:
    details = ("b.txt", "x") not in members  # the listing says more where members may lie apart
    assert_same(write_tar(tmp_path / "0.tar", members), details)


def test_separated_members_are_reported(tmp_path: Path) -> None:
    names = [*((f"{key}.jpg", image()) for key in "ab"), *((f"{key}.txt", "x") for key in "ab")]
    samples, rejected = streamed(write_tar(tmp_path / "0.tar", names))
    assert samples == [] and {r.reason for r in rejected} == {"missing text", "duplicate key"}
    assert all("must be adjacent" in r.detail for r in rejected)


def test_tar_files_joined_by_cat_are_read_to_the_end(tmp_path: Path) -> None:
    parts = [write_tar(tmp_path / f"{n}.tar", [*sample(f"{n}x"), *sample("same")]) for n in range(3)]
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_same(joined)
    assert [key for key, *_ in streamed(joined)[0]] == ["0x", "same", "1x", "same (2)", "2x", "same (3)"]
    joined.write_bytes(joined.read_bytes() + b"something else" * 100)
    assert_same(joined)


def test_every_cut_through_a_shard(tmp_path: Path) -> None:
    content = write_tar(tmp_path / "whole.tar", [*sample("a"), *sample("b")]).read_bytes()
    cut = tmp_path / "cut.tar"
    for length in range(0, len(content), 256):
        cut.write_bytes(content[:length])
        samples, rejected = streamed(cut)
        expected, others = indexed(cut)
        assert samples == expected, length
        assert [(r.key, r.reason) for r in rejected] == [(r.key, r.reason) for r in others], length


def test_damage_in_the_middle_ends_the_shard_and_is_reported(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", [member for key in "abcd" for member in sample(key)])
    content = bytearray(shard.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        start = tar.getmember("c.jpg").offset
    content[start : start + 512] = b"\xff" * 512
    shard.write_bytes(content)
    samples, rejected = streamed(shard)
    assert [key for key, *_ in samples] == ["a", "b"]
    (damage,) = rejected
    assert (damage.reason, damage.key) == ("damaged shard", "") and "2 samples usable" in damage.detail
    assert_same(shard, details=False)


@pytest.mark.parametrize("content", [b"\x1f\x8b compressed", b"<html>" * 500, b"x"])
def test_what_is_no_tar_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(content)
    assert [(r.key, r.reason) for r in streamed(tmp_path / "0.tar")[1]] == [("", "not a tar file")]


def test_a_shard_that_is_gone(tmp_path: Path) -> None:
    assert [r.reason for r in streamed(tmp_path / "none.tar")[1]] == ["unreadable shard"]


def test_the_output_of_a_command(tmp_path: Path) -> None:
    write_shards(tmp_path, [5])
    shard = tmp_path / "00000.tar"
    assert streamed(PipeShard(f"pipe:cat {shard}"))[0] == indexed(shard)[0]


def test_a_failed_command_is_reported_after_its_output(tmp_path: Path) -> None:
    write_shards(tmp_path, [5])
    for _ in range(3):
        samples, rejected = streamed(PipeShard(f"pipe:cat {tmp_path / '00000.tar'}; exit 3"))
        assert len(samples) == 5
        assert [(r.reason, r.detail) for r in rejected] == [
            ("unreadable shard", "the command ended with status 3; 5 samples usable")
        ]


def test_the_draw_order_goes_on_from_any_draw() -> None:
    def drawn(order: DrawOrder, total: int) -> list[int]:
        samples_read: list[int] = []
        while True:
            while order.wants_more:
                if order.read == total:
                    order.ended = True
                else:
                    order.add()
            if not order.held:
                return samples_read
            samples_read.append(order.draw())

    whole = drawn(DrawOrder(7, "key"), 40)
    assert sorted(whole) == list(range(40)) and whole != sorted(whole)
    assert all(index < start + 7 for start, index in enumerate(whole)), "nothing is drawn before it is read"
    assert drawn(DrawOrder(7, "other"), 40) != whole
    for draws in range(41):
        order = DrawOrder(7, "key")
        order.replay(draws, None if draws < 34 else 40)
        assert whole[:draws] + drawn(order, 40) == whole
