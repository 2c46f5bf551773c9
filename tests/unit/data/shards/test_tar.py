"""Finding shards and samples, also in damaged ones."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from shard_files import image, sample, write_shards, write_tar

from blip2_train.data.batches.images import decode_image
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shards.paths import list_shards
from blip2_train.data.shards.sample_files import captions_of
from blip2_train.data.shards.tar import scan_shard
from blip2_train.data.sources.config import SourceConfig, open_source
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.storage.options import StorageOptions
from blip2_train.data.storage.user_cache import index_folder
from blip2_train.errors import ShardError


def _scan(path: Path) -> tuple[list[str], dict[str, int]]:
    rows, rejected = scan_shard(path)
    return [row["key"].decode() for row in rows], dict(Counter(one.reason for one in rejected))


def test_samples_of_a_whole_shard(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", [*sample("a"), *sample("b"), *sample("deep/c")])
    assert _scan(shard) == (["a", "b", "deep/c"], {})


def test_names_with_more_dots(tmp_path: Path) -> None:
    members = [("img.v1.jpg", image()), ("img.txt", "one")]
    assert _scan(write_tar(tmp_path / "0.tar", members)) == (["img"], {})
    members = [("img.v1.jpg", image()), ("img.v1.txt", "1"), ("img.v2.jpg", image()), ("img.v2.txt", "2")]
    assert _scan(write_tar(tmp_path / "1.tar", members)) == (["img.v1", "img.v2"], {})
    members = [("img.jpg", image()), ("img.txt", "1"), ("img.mask.png", image(form="PNG"))]
    assert _scan(write_tar(tmp_path / "2.tar", members)) == (["img"], {})
    members = [("img.v1.jpg", image()), ("img.v2.jpg", image()), ("img.txt", "1")]
    assert _scan(write_tar(tmp_path / "3.tar", members)) == ([], {"ambiguous names": 1})


def test_extensions_in_capitals_long_names_and_other_files(tmp_path: Path) -> None:
    long = "x" * 180
    members = [(f"{long}.JPEG", image()), (f"{long}.TXT", "one"), ("._hidden", "x"), ("noextension", "x")]
    assert _scan(write_tar(tmp_path / "0.tar", members)) == ([long], {})


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("b.jpg", image())], "missing text"),
        ([("b.txt", "words")], "missing image"),
        ([("b.json", "{}")], "missing image"),
        ([("b.npy", "x")], "neither image nor text"),
    ],
)
def test_incomplete_samples_are_left_out(tmp_path: Path, members: list[tuple[str, bytes]], reason: str) -> None:
    shard = write_tar(tmp_path / "0.tar", [*sample("a"), *members, *sample("c")])
    assert _scan(shard) == (["a", "c"], {reason: 1})


def test_a_duplicate_key_counts_once_and_the_first_is_used(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", [*sample("a", "first"), *sample("b"), *sample("a", "second")])
    assert _scan(shard) == (["a", "b"], {"duplicate key": 1})
    assert ShardSource(str(shard), "s", tmp_path).read(0).captions == ("first",)


@pytest.mark.parametrize("name", ["/etc/b", "../b", "deep/../../b"])
def test_names_that_lead_out_of_the_shard_are_refused(tmp_path: Path, name: str) -> None:
    shard = write_tar(tmp_path / "0.tar", [*sample("a"), *sample(name), *sample("c..d/e")])
    assert _scan(shard) == (["a", "c..d/e"], {"unsafe name": 1})


def test_the_content_of_a_image_counts_not_its_extension(tmp_path: Path) -> None:
    members = [("a.jpg", image(form="PNG")), ("a.txt", "one"), ("b.png", "<html>"), ("b.txt", "two")]
    source = ShardSource(str(write_tar(tmp_path / "0.tar", members)), "s", tmp_path / "index")
    assert decode_image(source.read(0).image).size == (24, 16)
    with pytest.raises(UnusableSample, match="unreadable image"):
        decode_image(source.read(1).image)


def test_a_bad_shard_ends_the_run_on_request(tmp_path: Path) -> None:
    write_shards(tmp_path / "data", [2, 2])
    stop = StorageOptions(bad_shards="stop")
    source = ShardSource(str(tmp_path / "data"), "s", tmp_path / "index", stop)
    with (tmp_path / "data" / "00001.tar").open("rb+") as file:
        file.truncate(700)
    with pytest.raises(ShardError, match=r"truncated shard: .*00001.tar.*bad_shards=skip"):
        source.read(3)
    with pytest.raises(ShardError, match=r"truncated shard: .*00001.tar"):
        ShardSource(str(tmp_path / "data"), "s", tmp_path / "index", stop)


def test_every_cut_through_a_shard(tmp_path: Path) -> None:
    """Whatever the byte at which a shard ends, samples before it are used and the damage is one record."""
    whole = write_tar(tmp_path / "whole.tar", [*sample("a"), *sample("b"), *sample("c")])
    data = whole.read_bytes()
    with tarfile.open(whole) as tar:
        ends = {m.name: -(-(m.offset_data + m.size) // 512) * 512 for m in tar.getmembers()}
        contents = {m.name: m.offset_data + m.size for m in tar.getmembers()}
    for cut in range(600, ends["c.json"] + 1, 97):
        path = tmp_path / "cut.tar"
        path.write_bytes(data[:cut])
        keys, reasons = _scan(path)
        complete = [key for key in "abc" if cut >= contents[f"{key}.txt"]]
        assert keys == complete, cut
        assert list(reasons.values()) == [1] and set(reasons) <= {"truncated shard", "not a tar file"}, (cut, reasons)


def _joined(folder: Path, *parts: list[tuple[str, bytes | str]]) -> Path:
    """Tar files as Python writes them, padded to 20 blocks, one behind the other as `cat` joins them."""
    made = [write_tar(folder / f"part{index}.tar", part).read_bytes() for index, part in enumerate(parts)]
    assert all(len(data) % (20 * 512) == 0 for data in made)
    (folder / "joined.tar").write_bytes(b"".join(made))
    return folder / "joined.tar"


def test_tar_files_joined_by_cat_are_read_to_the_end(tmp_path: Path) -> None:
    joined = _joined(tmp_path, [*sample("a"), *sample("b")], sample("c"), [*sample("d"), *sample("e")])
    assert _scan(joined) == (["a", "b", "c", "d", "e"], {})
    source = ShardSource(str(joined), "s", tmp_path / "index")
    assert [source.read(index).image for index in range(5)] == [sample(key)[0][1] for key in "abcde"]
    again = _joined(tmp_path, [*sample("a", "one"), *sample("b")], sample("a", "two"))
    assert _scan(again) == (["a", "b", "a (2)"], {}), "another sample with the key of an earlier one"
    assert ShardSource(str(again), "s", tmp_path / "index").read(2).captions == ("two",)
    apart = _joined(tmp_path, [("a.jpg", image()), ("b.jpg", image())], [("a.txt", "one"), ("b.txt", "two")])
    assert _scan(apart) == (["a", "b"], {})


def test_content_behind_the_end_mark_is_reported(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "0.tar", [*sample("a"), *sample("b")])
    data = whole.read_bytes()
    for tail in (b"", b"\0" * 99, b"\0" * 512 * 300):
        whole.write_bytes(data + tail)
        assert _scan(whole) == (["a", "b"], {})
    for tail in (b"no tar", b"\0" * 1024 + b"no tar " * 400):
        whole.write_bytes(data + tail)
        keys, reasons = _scan(whole)
        assert keys == ["a", "b"] and reasons == {"damaged shard": 1}
    second = write_tar(tmp_path / "1.tar", [*sample("c"), *sample("d")]).read_bytes()
    whole.write_bytes(data + second[: len(second) // 2])
    keys, reasons = _scan(whole)
    assert keys[:2] == ["a", "b"] and reasons == {"truncated shard": 1}


def test_an_index_of_an_earlier_version_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1 stopped at the first end mark."""
    joined = _joined(tmp_path, sample("a"), sample("b"))
    with monkeypatch.context() as before:
        before.setattr("blip2_train.data.shards.index._VERSION", 1)
        before.setattr("blip2_train.data.shards.tar._next_content", lambda file, offset: None)
        assert len(ShardSource(str(joined), "s", tmp_path / "index")) == 1
    assert len(ShardSource(str(joined), "s", tmp_path / "index")) == 2


def _latin_tar(path: Path) -> Path:
    """A shard with names in cp1252, as Windows' tar writes them."""
    members = [*sample("a"), *sample("caf\xe9\x92"), *sample("d\xe9p\xf4t/b")]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as tar:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_names_that_are_no_utf8_are_used(tmp_path: Path) -> None:
    shard = _latin_tar(tmp_path / os.fsdecode(b"d\xe9p\xf4t.tar"))
    write_tar(tmp_path / "z.tar", [])
    assert _scan(shard)[0] == ["a", r"caf\udce9\udc92", r"d\udce9p\udcf4t/b"]
    source = ShardSource(str(tmp_path), "s", tmp_path / "index")
    assert [source.read(index).captions for index in range(3)] == [("a red cat",)] * 3
    assert source.sample_location(1).shard == r"d\udce9p\udcf4t" and source.sample_location(1).file.endswith(
        r"d\udce9p\udcf4t.tar"
    )
    assert len({source.read(index).image_id for index in range(3)}) == 3 and source.fingerprint()
    json.dumps([source.sample_location(index) for index in range(3)], ensure_ascii=False).encode()
    assert SourceConfig(path=os.fsdecode(b"data/d\xe9p\xf4t")).title == r"d\udce9p\udcf4t", "it names metrics, too"


def test_other_endings_count_where_there_is_no_usual_one(tmp_path: Path) -> None:
    """TIFF, AVIF, GIF and BMP beside a JPEG are further members, as they were."""
    tiff = image(form="TIFF")
    members = [("a.tif", tiff), ("a.txt", "1"), ("b.TIFF", tiff), ("b.txt", "2"), ("c.jpg", image()), ("c.tif", tiff)]
    members += [("c.txt", "3"), ("d.avif", b"x"), ("d.txt", "4"), ("e.gif", tiff), ("e.bmp", tiff), ("e.txt", "5")]
    shard = write_tar(tmp_path / "0.tar", members)
    assert _scan(shard) == (["a", "b", "c", "d"], {"ambiguous names": 1})
    source = ShardSource(str(shard), "s", tmp_path / "index")
    assert source.read(0).image == tiff and source.read(2).image == image()


def test_the_key_of_the_caption_can_be_chosen(tmp_path: Path) -> None:
    extras: list[Any] = [{"blip": "one"}, {"blip": [None, "two"], "caption": "no"}, {"TEXT": "x"}, ["x"]]
    members: list[tuple[str, bytes | str]] = []
    for index, extra in enumerate(extras):
        members += [(f"{index}.jpg", image()), (f"{index}.json", json.dumps(extra)), (f"{index}.txt", "no")]
    write_tar(tmp_path / "0.tar", [*members, ("4.jpg", image()), ("4.txt", "no")])
    source = ShardSource(str(tmp_path), "s", tmp_path / "index", caption_key="blip")
    assert [source.read(index).captions for index in range(2)] == [("one",), ("two",)]
    assert source.fingerprint() != ShardSource(str(tmp_path), "s", tmp_path / "index").fingerprint()
    for index in (2, 3, 4):
        with pytest.raises(UnusableSample, match="no caption in json"):
            source.read(index)
    with pytest.raises(ShardError, match=r"under 'BLIP'; their keys are 'blip', 'caption', 'TEXT': pass") as caught:
        ShardSource(str(tmp_path), "s", tmp_path / "index", caption_key="BLIP")
    assert "\n" not in str(caught.value)
    assert open_source(SourceConfig(path=str(tmp_path), caption_column="blip")).read(1).captions == ("two",)


def test_members_of_other_endings_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", image()), ("a.caption", "a cat")])
    with pytest.raises(ShardError, match=r"missing text a; members: a.jpg, a.caption\): a sample is .* with a .txt or"):
        ShardSource(str(tmp_path), "s", tmp_path / "index")


def test_ranges_in_braces_are_expanded(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", [1] * 12)
    write_shards(tmp_path / "{0..9}", [1])
    for item, count in (("a/{00003..00010}.tar", 8), ("a/0000{1,3,5}.tar", 3), ("{a,{0..9}}/00000.tar", 0)):
        if count:
            assert len(list_shards(f"{tmp_path}/{item}")) == count
        else:
            with pytest.raises(ShardError, match="there is no file or folder"):
                list_shards(f"{tmp_path}/{item}")
    assert len(list_shards(str(tmp_path / "{0..9}"))) == 1, "a folder that is called like that"
    assert SourceConfig(path=f"{tmp_path}/a/{{00000..00011}}.tar").title == "a"


def test_damage_in_the_middle(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", [*sample("a"), *sample("b"), *sample("c")])
    with tarfile.open(shard) as tar:
        offset = tar.getmember("b.jpg").offset
    data = bytearray(shard.read_bytes())
    data[offset : offset + 512] = b"\xff" * 512
    shard.write_bytes(data)
    assert _scan(shard) == (["a"], {"damaged shard": 1})


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty file"), (b"no tar " * 400, "not a tar file")])
def test_a_file_that_is_no_shard(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    assert _scan(tmp_path / "bad.tar") == ([], {reason: 1})
    with pytest.raises(ShardError, match=f"no usable sample.*{reason}"):
        ShardSource(str(tmp_path), "s", tmp_path / "index")
    write_tar(tmp_path / "good.tar", sample("a"))
    source = ShardSource(str(tmp_path), "s", tmp_path / "index")
    assert len(source) == 1 and source.sample_location(0).shard == "good"
    assert [one.reason for one in source.rejected] == [reason]


def test_lists_globs_and_folders(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", [1, 1])
    write_shards(tmp_path / "b", [1])
    assert [shard.name for shard in list_shards(str(tmp_path / "a"))] == ["00000.tar", "00001.tar"]
    assert len(list_shards(f"{tmp_path}/*/*.tar")) == len(list_shards(f"{tmp_path}/**/*.tar")) == 3
    assert len(list_shards([str(tmp_path / "b"), str(tmp_path / "a" / "00001.tar")])) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "there is no file or folder .*missing"),
        ("empty", "holds no .tar file; give data.source"),
        ("images", "holds no .tar file; it holds images, which need captions"),
        ("", "shards lie deeper"),
        ("a/*.tgz", "no file matches"),
        ("a/{00000..00003}.tar", "there is no file or folder .*00001.tar"),
        ("a/{00000..00003.tar", "a brace that is not closed"),
        ("packed/0.tar.gz", "is compressed.*unpack"),
    ],
)
def test_nothing_to_read_is_one_clear_line(tmp_path: Path, path: str, message: str) -> None:
    write_shards(tmp_path / "a", [1])
    for name in ("empty", "images", "packed"):
        (tmp_path / name).mkdir()
    (tmp_path / "images" / "a.tif").write_bytes(b"x")
    (tmp_path / "packed" / "0.tar.gz").write_bytes(b"x")
    with pytest.raises(ShardError, match=message) as caught:
        list_shards(str(tmp_path / path))
    assert "\n" not in str(caught.value)


def test_a_shard_listed_twice_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, [1])
    with pytest.raises(ShardError, match="listed twice"):
        list_shards([str(tmp_path), str(tmp_path / "00000.tar")])
    with pytest.raises(ShardError, match="empty"):
        list_shards([])


def test_the_index_is_kept_and_follows_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "data", [3, 2])
    first = ShardSource(str(tmp_path / "data"), "s", tmp_path / "index")
    calls: list[Path] = []
    monkeypatch.setattr(
        "blip2_train.data.shards.index.scan_shard", lambda path, _: (calls.append(path), scan_shard(path))[1]
    )
    again = ShardSource(str(tmp_path / "data"), "s", tmp_path / "index")
    assert calls == [] and again.fingerprint() == first.fingerprint() and len(again) == 5
    changed = write_tar(tmp_path / "data" / "00001.tar", sample("new"))
    os.utime(changed, ns=(1, 1))
    third = ShardSource(str(tmp_path / "data"), "s", tmp_path / "index")
    assert calls == [changed] and len(third) == 4 and third.fingerprint() != first.fingerprint()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["00000.tar", "00001.tar"]


def test_the_index_lies_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert index_folder() == tmp_path / "blip2_train" / "shards"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert index_folder().is_dir()


def test_moved_data_keeps_its_fingerprint_and_identities(tmp_path: Path) -> None:
    write_shards(tmp_path / "here" / "train", [2, 3])
    before = ShardSource(f"{tmp_path}/here/train", "s", tmp_path / "index")
    facts = before.fingerprint(), before.read(3).image_id, before.sample_location(3)[1:]
    (tmp_path / "here").rename(tmp_path / "there")
    after = ShardSource(f"{tmp_path}/there/train/*.tar", "s", tmp_path / "index")
    assert (after.fingerprint(), after.read(3).image_id, after.sample_location(3)[1:]) == facts


def test_image_identities_are_distinct_and_fit_int64(tmp_path: Path) -> None:
    source = ShardSource(str(write_shards(tmp_path, [20, 20])), "s", tmp_path)
    identities = {source.read(index).image_id for index in range(40)}
    assert len(identities) == 40 and max(identities) < 2**63
    np.array(list(identities), dtype=np.int64)


def test_a_shard_that_goes_away_during_the_run(tmp_path: Path) -> None:
    source = ShardSource(str(write_shards(tmp_path / "data", [2, 2])), "s", tmp_path)
    (tmp_path / "data" / "00001.tar").unlink()
    with pytest.raises(UnusableSample) as caught:
        source.read(3)
    assert caught.value.reason == "unreadable shard"
    assert source.read(1).captions
    with (tmp_path / "data" / "00000.tar").open("rb+") as file:
        file.truncate(700)
    with pytest.raises(UnusableSample) as caught:
        source.read(1)
    assert caught.value.reason == "truncated shard"


@pytest.mark.parametrize(
    ("text", "extra", "captions"),
    [
        (b"words", None, ("words",)),
        (b"\xef\xbb\xbfwords", b'{"caption": "other"}', ("words",)),
        (b"words", b'{"captions": ["one", "two"]}', ("one", "two")),
        (None, b'{"caption": "one"}', ("one",)),
        (None, b'["best", "second"]', ("best", "second")),
        (None, b'{"captions": [null, "one", null, "two"]}', ("one", "two")),
        (None, b'{"caption": ["one", null]}', ("one",)),
        (b"words", b"{broken", ("words",)),
    ],
)
def test_where_captions_come_from(text: bytes | None, extra: bytes | None, captions: tuple[str, ...]) -> None:
    assert captions_of(text, extra) == captions


@pytest.mark.parametrize(
    ("text", "extra", "reason"),
    [
        (None, b"{broken", "unreadable json"),
        (None, b'{"url": "x"}', "no caption in json"),
        (None, b'{"caption": null}', "no caption in json"),
        (None, b'{"captions": []}', "no caption in json"),
        (None, b"[1, 2]", "no caption in json"),
        (None, b"7", "no caption in json"),
        (b"caf\xe9", None, "text is not Unicode"),
        (None, b'{"caption": "caf\xe9"}', "text is not Unicode"),
        (None, b"[" * 100_000, "unreadable json"),
        (None, b"[null]", "no caption in json"),
    ],
)
def test_texts_without_a_caption(text: bytes | None, extra: bytes | None, reason: str) -> None:
    with pytest.raises(UnusableSample) as caught:
        captions_of(text, extra)
    assert caught.value.reason == reason


def test_samples_that_name_one_image_share_its_identity(tmp_path: Path) -> None:
    members: list[tuple[str, bytes | str]] = []
    for key, image_id in (("000", 7), ("001", 7), ("002", 8), ("003", None)):
        extra = {"caption": "a cat"} | ({} if image_id is None else {"image_id": image_id})
        members += [(f"{key}.jpg", image()), (f"{key}.json", json.dumps(extra))]
    write_tar(tmp_path / "s" / "0.tar", members)
    source = ShardSource(str(tmp_path / "s"), "regions", tmp_path / "index")
    ids = [source.read(index).image_id for index in range(4)]
    assert ids[0] == ids[1] and len(set(ids)) == 3


def test_ranges_on_remote_storage_are_expanded_too(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for index in range(12):
        data = write_tar(tmp_path / "one.tar", sample(str(index))).read_bytes()
        system.pipe_file(f"/braces/{index:02d}.tar", data)
    try:
        shards = list_shards("memory://braces/{08..11}.tar")
        assert [shard.name for shard in shards] == ["08.tar", "09.tar", "10.tar", "11.tar"]
        assert len(ShardSource("memory://braces/{00..03}.tar", "s", tmp_path / "index")) == 4
        with pytest.raises(ShardError, match=r"there is no file or folder memory://braces/12.tar"):
            list_shards("memory://braces/{11..12}.tar")
    finally:
        system.rm("/braces", recursive=True)
