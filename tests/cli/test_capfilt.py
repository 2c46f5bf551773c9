"""The command that gives images better captions: the same shards, whoever works on them and whatever is killed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_exports import write_exports
from foreign_models import save_theirs, their_model
from PIL import Image
from s3_server import running_s3
from shard_files import encode, image, write_shards, write_tar
from tiny_blip import write_blip
from transformers import BlipForConditionalGeneration

from blip2_train.cli import model_workers
from blip2_train.cli.capfilt import filtering
from blip2_train.cli.capfilt.command import main
from blip2_train.cli.phase_progress import PhaseProgress
from blip2_train.cli.terminal import run_command
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, TrainTransform
from blip2_train.data.prepare import journal
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.stream.stream import TrainingStream
from blip2_train.errors import ConfigError

QUICK = ["captions=3", "max_new_tokens=5", "batch_size=4", "samples_per_shard=5", "duplicates=keep", "device=cpu"]


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("exports")
    headless = save_theirs(their_model("retrieval"), "retrieval", folder / "headless")
    return write_exports(folder) | {"headless": str(headless)}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards of 13 samples, and one with two captions, no image, and a caption without a word."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(journal, "CHUNK", 6)
    folder = write_shards(tmp_path / "source", (8, 5))
    extra = json.dumps({"captions": ["a dog", "a big dog", "A DOG."], "url": "https://example.org/1", "licence": "CC0"})
    members = [("a.jpg", image((1, 2, 3))), ("a.json", extra), ("b.jpg", b"none"), ("b.txt", "a cat")]
    write_tar(folder / "00002.tar", [*members, ("c.jpg", image((9, 9, 9))), ("c.txt", " . ")])
    return folder


def arguments(source: Path, exports: dict[str, str], output: Path, *more: str) -> list[str]:
    given = [f"source={source}", f"output={output}", f"captioner={exports['opt']}", f"scorer={exports['stage1']}"]
    return [*given, *QUICK, *(more or ("workers=1",))]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def records(folder: Path) -> list[dict[str, Any]]:
    entries = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            entries += [json.loads(tar.extractfile(m).read()) for m in tar if m.name.endswith(".json")]  # type: ignore[union-attr]
    return entries


def test_the_q_former_of_stage_1_writes_as_well(
    source: Path, exports: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [one for one in arguments(source, exports, tmp_path / "out") if not one.startswith("captioner=")]
    main([*given, f"captioner={exports['stage1']}"])
    assert capsys.readouterr().out.startswith(f"models:    {exports['stage1']} writes")
    made = records(tmp_path / "out")
    assert len(made) == 14 and "synthetic" in {origin for record in made for origin in record["caption_origins"]}


def test_the_best_captions_come_first_and_training_draws_one(
    source: Path, exports: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    main(arguments(source, exports, folder))
    printed = capsys.readouterr().out
    assert (
        printed.startswith(f"models:    {exports['opt']} writes, {exports['stage1']} ranks\n")
        and printed.count("\n") == 5
    )
    assert "captions:  the best 2 of 3 and an image's own, " in printed and "images a second" in printed
    index = json.loads((folder / "index.json").read_text())
    assert [shard["samples"] for shard in index["shards"]] == [5, 5, 4]
    assert index["rejected"] == {"empty caption": 1, "unreadable image": 1}
    assert {name: index["settings"][name] for name in ("captions", "keep", "score", "seed")} == {
        "captions": 3, "keep": 2, "score": "itc", "seed": 42,
    }  # fmt: skip
    made = records(folder)
    for record in made:
        assert record["captions"][0] == record["caption"] and 1 <= len(record["captions"]) <= 2
        assert record["caption_scores"] == sorted(record["caption_scores"], reverse=True)
        assert len(record["caption_origins"]) == len(record["caption_scores"]) == len(record["captions"])
    assert {origin for record in made for origin in record["caption_origins"]} == {"original", "synthetic"}
    assert made[-1]["licence"] == "CC0"
    all_of_them = tmp_path / "all"
    main([*arguments(source, exports, all_of_them), "keep=9"])
    for kept, every in zip(made, records(all_of_them), strict=True):
        assert every["captions"][: len(kept["captions"])] == kept["captions"]
    assert {"a dog", "a big dog"} <= set(every["captions"]) and "A DOG." not in every["captions"]
    shards = ShardSource(str(folder), "made")
    part = TrainingSource(source=shards, weight=1, held_out=np.zeros(0, np.int64))
    stream = TrainingStream([part], TrainTransform(12, CLIP_MEAN, CLIP_STD), 0)
    drawn = {item.sample_id for item in map(stream.__getitem__, range(140))}
    pairs = sum(len(record["captions"]) for record in made)
    assert len(drawn) > 0.9 * pairs > 20


def test_images_that_img2dataset_left_turned_are_seen_upright(
    exports: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same captions and scores as of the image that lies right; and the chosen key is that of the caption."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photograph = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    made = {}
    for name, turned, words in (
        ("turned", photograph, "Rotated 90 CW"),
        ("upright", photograph.transpose(Image.Transpose.ROTATE_270), "Horizontal (normal)"),
    ):
        record = {"blip": "a dog", "exif": json.dumps({"Image Orientation": words}), "original_width": 500}
        members = [("a.png", encode(turned, "PNG")), ("a.json", json.dumps(record)), ("a.txt", "no")]
        write_tar(tmp_path / name / "0.tar", members)
        main([*arguments(tmp_path / name, exports, tmp_path / f"{name} out"), "caption_column=blip", "keep=9"])
        (made[name],) = records(tmp_path / f"{name} out")
    for key in ("captions", "caption_scores", "caption_origins", "width", "height"):
        assert made["turned"][key] == made["upright"][key], key
    assert "a dog" in made["turned"]["captions"] and "no" not in made["turned"]["captions"]
    assert json.loads(made["turned"]["exif"]) == {"Image Orientation": "Rotated 90 CW"}


def test_the_number_of_processes_does_not_matter(source: Path, exports: dict[str, str], tmp_path: Path) -> None:
    main(arguments(source, exports, tmp_path / "one"))
    main(arguments(source, exports, tmp_path / "two", "workers=2"))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    main([*arguments(source, exports, tmp_path / "other"), "seed=1"])
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


def killed_after(events: int, given: list[str]) -> int:
    """The exit code of a process that is killed when it has shown its progress so many times."""

    def child() -> None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        left = [events]
        shown = PhaseProgress.__call__

        def show(self: PhaseProgress, *values: Any) -> None:
            shown(self, *values)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        PhaseProgress.__call__ = show  # type: ignore[method-assign]
        os._exit(run_command(main, given))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def test_kills_change_nothing(source: Path, exports: dict[str, str], tmp_path: Path) -> None:
    main(arguments(source, exports, tmp_path / "whole"))
    given = arguments(source, exports, tmp_path / "killed")
    written = []
    for events in (4, 2, 3, 3):  # examining, then at the second batch, the fourth, and the second shard
        assert killed_after(events, given) == -signal.SIGKILL
        work = tmp_path / "killed" / ".preparing"
        ends = work / "captions.ends"
        written.append(ends.stat().st_size // 8 if ends.exists() else 0)
        with (work / "captions.jsonl").open("a") as lines:  # a batch that was being written
            lines.write('{"captions": ["a c')
        with ends.open("ab") as file:
            file.write(b"half")
    assert written[0] == 0 and 0 < written[1] < written[2] <= 14
    assert killed_after(99, given) == 0
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("captioner={headless}", "has no prediction head for its Q-Former, so it cannot describe"),
        ("captioner=gone", ".pdparams file; or blip:<folder or hub id of transformers' BLIP>"),
        ("scorer={opt}", "scores need an image-text model (stage 1), but"),
        ("scorer=clip:gone", "scorer clip:gone: there is no folder gone; give clip:<folder or hub id"),
        ("scorer=clip:{stage1}", "is no CLIP model"),
        ("captioner=blip:gone", "captioner blip:gone: there is no folder gone; give blip:<folder or hub id of transf"),
        ("captioner=blip:{opt}", "is no captioning BLIP"),
        ("captioner=last:demo_gone", "/outputs/demo_gone has an export; run experiment=demo_gone first"),
        ("source=gone", "there is no file or folder gone"),
        ("keep=0", "keep must be at least 1, got 0"),
        ("top_p=2", "top_p must be in (0, 1], got 2"),
        ("score=clip", "score=clip: expected one of itc, itm"),
        ("caption=3", "no setting 'caption'; did you mean 'captions'?"),
        ("batch_size=0", "batch_size must be at least 1, got 0"),
        ("gpus_per_worker=1.5", "gpus_per_worker must be 0, a part of 1, or a whole number, got 1.5"),
        ("gpus_per_worker=0.5", "gpus_per_worker=0.5 is for engine=ray; processes of this machine divide"),
    ],
)
def test_mistakes_are_one_line(
    setting: str,
    message: str,
    source: Path,
    exports: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    setting = setting.format(**exports)
    name = setting.partition("=")[0]
    given = [one for one in arguments(source, exports, tmp_path / "out") if not one.startswith(f"{name}=")]
    assert run_command(main, [*given, setting]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and message in printed
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused_where_some_were_begun(
    source: Path, exports: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(source, exports, tmp_path / "out")
    assert killed_after(5, given) == -signal.SIGKILL
    assert run_command(main, [one for one in given if not one.startswith("captions=")]) == 2
    assert "made with captions 3, now it is 10; give another output" in capsys.readouterr().err


def test_on_remote_storage_the_bytes_are_the_same(
    source: Path,
    exports: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blip = write_blip(tmp_path / "blip", BlipForConditionalGeneration)
    capsys.readouterr()
    with running_s3(monkeypatch) as s3:
        s3.upload(source, "source")
        for root in (str(tmp_path), "s3://data"):
            given = [f"source={root}/source", f"output={root}/out", f"captioner=blip:{blip}"]
            main([*given, f"scorer={exports['stage1']}", *QUICK, "workers=1"])
        assert capsys.readouterr().err == ""
        here, there = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}, s3.content("out/")
    assert there.pop("rejected.jsonl").replace(b"s3://data", bytes(tmp_path)) == here.pop("rejected.jsonl")
    assert there == here
    origins = [origin for record in records(tmp_path / "out") for origin in record["caption_origins"]]
    assert "synthetic" in origins and json.loads(here["index.json"])["settings"]["captioner"] == f"blip:{blip}"


def test_machines_of_a_cluster_must_see_models_source_and_output(
    source: Path,
    exports: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    requests: list[dict[str, Any]] = []

    def refuse(*_: object, **options: Any) -> None:
        requests.append(options)
        raise ConfigError("no cluster")

    monkeypatch.setattr(model_workers, "open_engine", refuse)
    more = ["engine=ray", "gpus_per_worker=0.5", "ray_address=auto"]
    assert run_command(main, arguments(source, exports, tmp_path / "out", *more)) == 2
    assert requests[0]["shared"] == [str(source), exports["opt"], exports["stage1"], str(tmp_path / "out/.preparing")]
    assert requests[0]["gpus_per_worker"] == 0.5 and requests[0]["ray_address"] == "auto"
    elsewhere = [one for one in arguments(source, exports, tmp_path / "out", "engine=ray") if one != "device=cpu"]
    assert run_command(main, [*elsewhere, "device=cuda"]) == 2 and len(requests) == 1
    assert "device=cuda needs gpus_per_worker=1" in capsys.readouterr().err
    asking: dict[str, Any] = {"source": "a", "output": "b", "captioner": "c", "scorer": "d", "engine": "ray"}
    assert filtering.Request(**asking).worker_device == "cpu"
    assert filtering.Request(**asking, gpus_per_worker=0.5).worker_device is None
