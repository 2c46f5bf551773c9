"""Checkpoints, manifests, exports and models of others that are damaged, of another kind, or hostile."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fault_test.desk import Desk
from fault_test.table import refused, row
from foreign_code import MARKER, folder_with_code
from shard_files import write_tokenizer
from warm_process import ROOT

GROUP = "models"
DEMO = ROOT / "blip2_train/assets/demo"
BREAKS = Callable[[Path], None]


def a_copy(desk: Desk, source: Path, change: BREAKS) -> Path:
    """A copy of a folder or file of the world, changed."""
    path = desk.folder / "copy" / source.name
    path.parent.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copy2(source, path)
    change(path)
    return path


def flipped(path: Path) -> None:
    """Turn one bit of a file, in the middle; of a zip file, in the middle of its largest part, not in what fills up."""
    content = bytearray(path.read_bytes())
    at = len(content) // 2
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            largest = max(parts.infolist(), key=lambda part: part.file_size)
        name, extra = struct.unpack_from("<HH", content, largest.header_offset + 26)
        at = largest.header_offset + 30 + name + extra + largest.file_size // 2
    content[at] ^= 0x10
    path.write_bytes(content)


def cut(path: Path, share: float = 0.6) -> None:
    """Leave the beginning of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def manifest(**values: Any) -> BREAKS:
    """Change fields of a manifest, by their paths with dots."""

    def change(export: Path) -> None:
        content = json.loads((export / "manifest.json").read_text())
        content.pop("crc32", None)  # as somebody would who changes it by hand
        for name, value in values.items():
            *path, last = name.split("__")
            node = content
            for key in path:
                node = node[key]
            node[last] = value
        (export / "manifest.json").write_text(json.dumps(content))

    return change


def text_of_manifest(text: str) -> BREAKS:
    return lambda export: (export / "manifest.json").write_text(text) and None


def images(desk: Desk) -> Path:
    return desk.world.questions / "images" / "000.jpg"


def predicting(name: str, change: BREAKS, words: str, export: str = "opt") -> None:
    """A row that captions an image with a damaged export."""

    def arguments(desk: Desk) -> list[object]:
        path = a_copy(desk, getattr(desk.world, export), change)
        return ["caption", "--device", "cpu", "--max-new-tokens", "2", "--model", path, images(desk)]

    refused(GROUP, name, "predict", arguments, words)


predicting("a bit of an export's weights is flipped", lambda p: flipped(p / "model.safetensors"), r"model\.safetensors")
predicting("the weights of an export are cut", lambda p: cut(p / "model.safetensors"), r"model\.safetensors")
predicting("an export without weights", lambda p: (p / "model.safetensors").unlink(), r"model\.safetensors|weights")
predicting("an export without tokenizer", lambda p: shutil.rmtree(p / "tokenizer"), r"tokenizer")
predicting("a manifest of a wrong type", manifest(step="nine"), r"manifest\.json.*step")
predicting("a manifest without a field", text_of_manifest('{"format": 1}'), r"manifest\.json")
predicting("a manifest too deep to be read", text_of_manifest("[" * 100_000), r"manifest\.json")
predicting("a manifest with 5,000 digits", text_of_manifest('{"step": ' + "1" * 5000 + "}"), r"manifest\.json")
predicting(
    "a manifest that is no UTF-8", lambda p: (p / "manifest.json").write_bytes(b"\xff\xfe{}") and None, "manifest"
)
predicting(
    "a manifest that names a hub's attention",
    manifest(architecture__language_model={"name": str(DEMO / "opt"), "attn_implementation": "some/kernel"}),
    r"manifest\.json|attn_implementation|attention",
)
predicting("a manifest that sets an attribute", manifest(architecture__nobody={"x": 1}), r"manifest\.json|nobody")


@row(GROUP, "a language model that brings code")
def foreign_code(desk: Desk) -> str:
    folder = folder_with_code(DEMO / "opt", desk.folder / "with_code", model_type="nobodys")
    message = desk.refused(
        "convert_checkpoint",
        desk.world.opt,
        "--to",
        desk.folder / "x",
        "--format",
        "huggingface",
        "--language-model",
        folder,
        words="with_code",
    )
    assert not (desk.folder / MARKER).exists(), "the code was run"
    return message


class Runs:
    """Writes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def hostile(name: str, file: str, command: Callable[[Desk, Path], tuple[str, list[object]]], torch_file: bool) -> None:
    """A row with a pickle that would run code."""

    def action(desk: Desk) -> str:
        marker, path = desk.folder / "was_run", desk.folder / file
        if torch_file:
            torch.save({"model": Runs(marker)}, path)
        else:
            path.write_bytes(pickle.dumps({"a": Runs(marker)}, protocol=4))
        what, arguments = command(desk, path)
        message = desk.refused(what, *arguments, words=file)
        assert not marker.exists(), "the pickle was run"
        assert "weights_only" not in message, f"advice to run it all the same: {message}"
        return message

    row(GROUP, name)(action)


def converted(desk: Desk, path: Path) -> tuple[str, list[object]]:
    return "convert_checkpoint", [path, "--to", desk.folder / "new"]


hostile("a LAVIS file that would run code", "lavis.pth", converted, True)
hostile("a Paddle file that would run code", "model.pdparams", converted, False)
hostile("a checkpoint that would run code", "x.ckpt", lambda d, p: ("train", d.training(f"resume_from={p}")), True)
hostile("a tower that would run code", "t.pt", lambda d, p: ("train", d.training(f"model.vision.weights={p}")), True)
hostile("a checkpoint to export that would run code", "s.ckpt", lambda d, p: ("export", [p, d.folder / "e"]), True)


def newest(desk: Desk) -> Path:
    return max((desk.world.run / "checkpoints").glob("*.ckpt"))


def resuming(name: str, change: BREAKS, words: str) -> None:
    """A row that goes on from a damaged checkpoint; exporting it is refused alike."""

    def action(desk: Desk) -> str:
        path = a_copy(desk, newest(desk), change)
        desk.keep(path)
        message = desk.refused("export", path, desk.folder / "e", words=words)
        assert not (desk.folder / "e").exists(), "something was exported"
        return message + " / " + desk.refused("train", *desk.training(f"resume_from={path}"), words=words)

    row(GROUP, name)(action)


resuming("a bit of a checkpoint is flipped", flipped, r"step_\d+\.ckpt")
resuming("a checkpoint is cut", cut, r"step_\d+\.ckpt")
resuming("a checkpoint of somebody else", lambda p: torch.save({"model": {"a": torch.ones(1)}}, p), r"step_\d+\.ckpt")
resuming("a checkpoint that is empty", lambda p: p.write_bytes(b"") and None, r"step_\d+\.ckpt")


@row(GROUP, "a checkpoint whose configuration names what would be called")
def named_target(desk: Desk) -> str:
    def change(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        text = state["blip2_train"]["config"]
        state["blip2_train"]["config"] = text.replace(
            "blip2_train.data.batches.collate.load_image_text_collator", "pathlib.Path.touch"
        ).replace("experiment: demo_stage1", "experiment: ${oc.env:HOME}")
        assert state["blip2_train"]["config"] != text
        torch.save(state, path)

    return desk.refused("export", a_copy(desk, newest(desk), change), desk.folder / "e", words=r"step_\d+\.ckpt")


def tower(content: Any) -> Callable[[Desk], list[object]]:
    def arguments(desk: Desk) -> list[object]:
        torch.save(content, desk.folder / "tower.pt")
        return desk.training(f"model.vision.weights={desk.folder / 'tower.pt'}")

    return arguments


refused(GROUP, "a tower of another size", "train", tower({"pos_embed": torch.ones(1, 5, 99)}), "tower.pt.*lacks|shape")
refused(GROUP, "an optimiser's state as a tower", "train", tower({"optimizer": 3}), "tensors")


def language(desk: Desk, name: str, content: Any = None) -> list[object]:
    """Arguments of a training whose language model is a folder with this file."""
    folder = desk.folder / "language"
    shutil.copytree(DEMO / "opt", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content or {"base_model_name_or_path": "some/base", "model_type": "opt"}))
    return [
        "experiment=demo_stage2_opt",
        f"model.language.name={folder}",
        "trainer=cpu",
        f"init_from={desk.world.stage1}",
        f"paths.output_dir={desk.folder / 'out'}",
        f"paths.data_dir={desk.folder / 'data'}",
        *(f"data.prepare.{part}_scenes=20" for part in ("train", "val", "test", "nocaps")),
    ]


refused(GROUP, "a GGUF file as a language model", "train", lambda d: language(d, "tiny.Q4.gguf"), "GGUF")
refused(GROUP, "a peft adapter as a language model", "train", lambda d: language(d, "adapter_config.json"), "peft")
refused(GROUP, "an ONNX graph as a language model", "train", lambda d: language(d, "onnx/model.onnx"), "ONNX")
refused(GROUP, "a language model without weights", "train", lambda d: language(d, "notes.json"), "language|weights")


def bert(desk: Desk, config: str) -> list[object]:
    folder = desk.folder / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return desk.training(f"model.qformer.weights={folder}")


refused(GROUP, "a GPT-2 in the place of BERT", "train", lambda d: bert(d, '{"model_type": "gpt2"}'), "bert")
refused(GROUP, "a BERT whose config.json is none", "train", lambda d: bert(d, "{"), r"config\.json")
refused(GROUP, "a BERT whose config.json is too deep", "train", lambda d: bert(d, '{"a":' * 99_999), r"config\.json")


def tokenizer(desk: Desk, name: str, content: str) -> list[object]:
    folder = Path(write_tokenizer(desk.folder / "words"))
    (folder / name).write_text(content)
    return desk.training(f"tokenizer={folder}")


refused(
    GROUP, "a vocabulary without special tokens", "train", lambda d: tokenizer(d, "vocab.txt", "a\nb\n"), "CLS|token"
)
refused(GROUP, "a tokenizer.json that is none", "train", lambda d: tokenizer(d, "tokenizer.json", "{"), "words")
refused(GROUP, "a missing export", "train", lambda d: d.training(f"init_from={d.folder / 'none'}"), "none")
refused(GROUP, "an empty folder to export", "export", lambda d: [d.folder], "run|checkpoint")


def theirs(desk: Desk, change: BREAKS) -> list[object]:
    """Arguments that convert a damaged Hugging Face folder."""
    return [a_copy(desk, desk.world.theirs, change), "--to", desk.folder / "ours"]


def huggingface(name: str, change: BREAKS, words: str) -> None:
    refused(GROUP, name, "convert_checkpoint", lambda desk: theirs(desk, change), words)


def written(name: str, text: str) -> BREAKS:
    return lambda folder: (folder / name).write_text(text) and None


huggingface("a Hugging Face folder whose config.json is none", written("config.json", "{"), r"theirs")
huggingface("a Hugging Face config.json of wrong types", written("config.json", '{"model_type": 7}'), r"theirs")
huggingface(
    "a preprocessor_config.json that is too deep", written("preprocessor_config.json", "[" * 99_999), "preprocessor"
)
huggingface("Hugging Face weights that are cut", lambda p: cut(next(p.glob("*.safetensors"))), r"theirs.*safetensors")
refused(
    GROUP,
    "a model of the hub without network",
    "convert_checkpoint",
    lambda d: ["Salesforce/blip2-opt-2.7b", "--to", d.folder / "x"],
    "could not be fetched",
)
refused(
    GROUP,
    "a folder that is there already",
    "convert_checkpoint",
    lambda d: [d.world.opt, "--to", d.folder / "out"],
    "exists already",
)


@row(GROUP, "a LAVIS file that is cut")
def cut_lavis(desk: Desk) -> str:
    torch.save({"model": {"Qformer.bert.x": torch.zeros(999)}}, desk.folder / "lavis.pth")
    cut(desk.folder / "lavis.pth")
    return desk.refused("convert_checkpoint", desk.folder / "lavis.pth", "--to", desk.folder / "x", words=r"lavis\.pth")
