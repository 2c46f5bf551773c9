"""Broken input ends with one line that names the thing and the fix, a non-zero exit, and nothing lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from shard_files import image, sample, write_shards, write_tar, write_tokenizer
from tiny_run import arguments
from transformers import BertConfig, BertForMaskedLM

from blip2_train.cli.export import main as export
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main

Break = Callable[[Path], list[str]]


def cut_every_shard(workspace: Path) -> list[str]:
    for shard in (workspace / "shards").glob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:700])
    return []


def no_tar(workspace: Path) -> list[str]:
    for shard in (workspace / "shards").glob("*.tar"):
        shard.write_bytes(b"this is not a tar file" * 100)
    return []


def only(members: Callable[[str], list[tuple[str, bytes | str]]]) -> Break:
    """Shards in which every sample is broken in one way."""

    def do(workspace: Path) -> list[str]:
        write_tar(workspace / "broken" / "00000.tar", [m for n in range(30) for m in members(f"{n:09d}")])
        return [f"data.source={workspace / 'broken'}"]

    return do


def some(members: Callable[[str], list[tuple[str, bytes | str]]]) -> Break:
    """Shards in which two samples of three are broken."""

    def do(workspace: Path) -> list[str]:
        names = [f"{n:09d}" for n in range(90)]
        everything = [m for n, name in enumerate(names) for m in (members(name) if n % 3 else sample(name))]
        write_tar(workspace / "broken" / "00000.tar", everything)
        return [f"data.source={workspace / 'broken'}", "steps=40", "validate_every=null"]

    return do


def bert_of(workspace: Path, **changes: int) -> list[str]:
    sizes = {"vocab_size": 46, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**(sizes | {"intermediate_size": 32, "max_position_embeddings": 64} | changes))
    BertForMaskedLM(config).save_pretrained(workspace / "bert")
    return [f"model.qformer.weights={workspace / 'bert'}"]


def tower_file(content: object) -> Break:
    def do(workspace: Path) -> list[str]:
        torch.save(content, workspace / "tower.pt")
        return [f"model.vision.weights={workspace / 'tower.pt'}"]

    return do


def broken_tokenizer(workspace: Path) -> list[str]:
    (workspace / "tokenizer" / "vocab.txt").write_text("a\nb\nc\n")
    return []


def other_tokenizer(workspace: Path) -> list[str]:
    write_tokenizer(workspace / "tokenizer", ["one", "two"])
    return []


def damaged_checkpoint(workspace: Path) -> list[str]:
    (workspace / "step_0000003.ckpt").write_bytes(b"PK\x03\x04 cut short")
    return [f"resume_from={workspace / 'step_0000003.ckpt'}"]


def foreign_checkpoint(workspace: Path) -> list[str]:
    torch.save({"model": {"a": torch.ones(1)}}, workspace / "foreign.pth")
    return [f"resume_from={workspace / 'foreign.pth'}"]


BROKEN: dict[str, tuple[Break, str]] = {
    "missing folder": (lambda p: [f"data.source={p / 'absent'}"], "absent"),
    "folder without shards": (lambda p: [f"data.source={p / 'tokenizer'}"], "tokenizer"),
    "glob that matches nothing": (lambda p: [f"data.source={p}/*.tarr"], "tarr"),
    "truncated tars": (cut_every_shard, "truncated|usable"),
    "files that are no tars": (no_tar, "not a tar|usable|tar"),
    "samples without text": (only(lambda n: [(f"{n}.jpg", image())]), "missing|text"),
    "samples without image": (only(lambda n: [(f"{n}.txt", "a cat")]), "missing|image"),
    "empty captions": (some(lambda n: [(f"{n}.jpg", image()), (f"{n}.txt", " . ")]), "empty caption"),
    "unreadable images": (some(lambda n: [(f"{n}.jpg", b"no jpeg"), (f"{n}.txt", "a cat")]), "unreadable image"),
    "broken json": (some(lambda n: [(f"{n}.jpg", image()), (f"{n}.json", "{caption")]), "json"),
    "missing tower file": (lambda p: [f"model.vision.weights={p / 'tower.safetensors'}"], "tower.safetensors"),
    "tower of another size": (tower_file({"pos_embed": torch.ones(1, 5, 99)}), "lacks|shape"),
    "optimiser state for a tower": (tower_file({"optimizer": 3}), "tensors"),
    "BERT of another size": (lambda p: bert_of(p, hidden_size=32), "hidden_size"),
    "BERT of another vocabulary": (lambda p: bert_of(p, vocab_size=33), "33 words|vocab_size"),
    "BERT with fewer layers": (lambda p: bert_of(p, num_hidden_layers=1), "num_layers"),
    "missing tokenizer": (lambda p: [f"tokenizer={p / 'no_tokenizer'}"], "no_tokenizer"),
    "tokenizer without special tokens": (broken_tokenizer, r"\[CLS\]|tokenizer"),
    "tokenizer of another vocabulary": (other_tokenizer, "vocab_size"),
    "missing export": (lambda p: [f"init_from={p / 'export'}"], "export"),
    "damaged checkpoint": (damaged_checkpoint, "step_0000003"),
    "foreign checkpoint": (foreign_checkpoint, "foreign"),
    "text longer than the positions": (lambda p: ["max_text_length=600"], "max_positions"),
    "weights in 16 bits": (lambda p: ["trainer.precision=bf16-true"], "precision"),
    "nothing to resume": (lambda p: ["resume_from=last"], "checkpoint"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_ends_in_one_clear_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards(tmp_path / "shards", [9, 4, 13])
    write_tokenizer(tmp_path / "tokenizer")
    kept = tmp_path / "out" / "demo_stage1" / "earlier" / "results.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    breaking, words = BROKEN[name]
    overrides = breaking(tmp_path)
    code = run_command(main, [*arguments(tmp_path / "out"), "data.num_workers=0", *overrides])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(errors) == 1, errors
    assert re.search(words, errors[0]), errors[0]
    assert len(errors[0].replace(str(tmp_path), "")) < 400
    assert kept.read_text() == "{}"


def test_an_export_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(export, [str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
