"""The readers that are fuzzed: for each, valid files, and what reads them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import user_files
from demo_exports import write_exports
from fuzz.annotation_files import CAPTIONS, QUESTIONS, RESULTS, TABLES
from shard_files import sample, write_shards

from blip2_train.checkpoints.convert.bert_config import read_bert_config
from blip2_train.checkpoints.convert.huggingface_config import describe_processor, read_config
from blip2_train.checkpoints.export import read_manifest
from blip2_train.checkpoints.files import read_weights
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.config.compose import compose
from blip2_train.data.annotations.captions import read_captions, read_references
from blip2_train.data.annotations.columns import Columns
from blip2_train.data.annotations.questions import read_questions
from blip2_train.data.annotations.results import ANSWERS, read_results
from blip2_train.data.annotations.results import CAPTIONS as CAPTION_NAMES
from blip2_train.data.batches.images import decode_image
from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.official.candidates import read_candidates
from blip2_train.data.shards.sample_files import captions_of, details_of, image_id_of, orientation_of
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.language_files import stated_tokens
from blip2_train.system.records import parse_yaml

DEMO = Path(__file__).parents[2] / "blip2_train" / "assets" / "demo"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One kind of file.

    Args:
        name: For the table.
        share: How often it is met, beside the others.
        files: Names and contents of those that are changed, of which an input changes one.
        read: Reads an input, whose folder and changed file it is given; what is not read is an error of this project,
            or `UnusableSample`.
        beside: A folder with what lies beside the file, which is copied for each input.
        structured: Whether the files are JSON.
    """

    name: str
    share: int
    files: Sequence[tuple[str, bytes]]
    read: Callable[[Path, Path], Any]
    beside: Path | None = None
    structured: bool = True

    def lay_out(self, folder: Path, name: str, content: bytes) -> Path:
        """Write an input into an empty folder."""
        if self.beside is not None:
            shutil.copytree(self.beside, folder, dirs_exist_ok=True)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def _shard(folder: Path) -> list[object]:
    source = ShardSource(str(folder / "shards"), "s", folder / "index")
    return [(source.read(n), source.details(n)) for n in range(min(len(source), 50))] + [source.fingerprint()]


def _shard_and_index(folder: Path, _: Path) -> Any:
    return _shard(folder)


def _sidecar(_: Path, path: Path) -> Any:
    content = path.read_bytes()
    extra, text = (content, b"a cat") if path.suffix == ".json" else (None, content)
    values = [image_id_of(extra), details_of(extra), orientation_of(extra)]
    return [*values, captions_of(text, extra), b'"caption":' in content and captions_of(None, extra, "caption")]


def _results(_: Path, path: Path) -> Any:
    if path.name.startswith("list"):
        return read_candidates(path)
    return read_results(path, ANSWERS if path.name.startswith("answers") else CAPTION_NAMES)


def _questions(folder: Path, path: Path) -> Any:
    if path.name == "annotations.json":
        return read_questions(folder / "questions.json", path)
    read_questions(path, strict=True)
    return read_questions(path)


def _captions(_: Path, path: Path) -> Any:
    split = "train" if path.stem in ("karpathy", "list") else None
    images = read_captions(path, split)
    references = read_references(path, split)
    return [(image.path, image.captions, image.identity) for image in [*images, *references]]


def _table(_: Path, path: Path) -> Any:
    images = read_captions(path, None, Columns(), strict=False)
    return [(image.path, image.captions) for image in images]


def _huggingface(folder: Path, _: Path) -> Any:
    return read_config(folder), describe_processor(folder, 224)


def _language(folder: Path, _: Path) -> Any:
    return stated_tokens(str(folder)), LanguageTokenizer(str(folder), padding_side="left", encoder_decoder=False)


def _manifest(folder: Path, _: Path) -> Any:
    return read_manifest(folder)


def _recipe(folder: Path, _: Path) -> Any:
    return compose(["experiment=mine"], folder)


def _overrides(_: Path, path: Path) -> Any:
    text = path.read_bytes().decode(errors="replace").replace("\0", "")
    return compose(["experiment=demo_stage1", *text.splitlines()])


def make_readers(folder: Path) -> list[Reader]:
    """All of them, with the files that they need made below a folder."""
    exports = write_exports(folder / "exports")
    manifests = [(Path(exports[name]) / "manifest.json").read_bytes() for name in ("stage1", "opt")]
    adapted = json.loads(manifests[1])
    adapted["architecture"]["adapters"] = {"r": 4, "alpha": 8.0, "dropout": 0.0, "task_type": "CAUSAL_LM"}
    manifests.append(json.dumps(adapted).encode())
    manifests = [*map(_without_checksum, manifests), manifests[0]]
    write_shards(folder / "shards" / "shards", [5, 3])
    _shard(folder / "shards")
    shards = sorted((folder / "shards" / "shards").glob("*.tar"))
    shutil.copytree(folder / "shards", folder / "unread")
    shutil.rmtree(folder / "unread" / "index")
    index = [path for path in (folder / "shards" / "index").rglob("*") if path.is_file()]
    theirs = folder / "theirs"
    shutil.copytree(_huggingface_folder(exports["opt"], theirs), folder / "configs", ignore=_no_weights)
    language = folder / "language"
    shutil.copytree(DEMO / "opt", language, ignore=_no_weights)
    images = [
        (f"a.{form.lower()}", user_files.image(3, form)) for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
    ]
    return [
        Reader(name="manifest", share=16, files=[("manifest.json", one) for one in manifests], read=_manifest),
        Reader(
            name="export",
            share=2,
            files=[("manifest.json", manifests[1])],  # the weights' own checksum stays
            read=lambda folder, _: open_pretrained(folder),
            beside=Path(exports["opt"]),
        ),
        Reader(name="captions", share=16, files=CAPTIONS, read=_captions),
        Reader(name="tables", share=8, files=TABLES, read=_table, structured=False),
        Reader(name="questions", share=14, files=QUESTIONS, read=_questions, beside=_laid(folder / "q", QUESTIONS[:1])),
        Reader(name="results", share=10, files=RESULTS, read=_results),
        Reader(
            name="shards",
            share=14,
            files=[(f"shards/{path.name}", path.read_bytes()) for path in shards] + [("shards/1.tar", _headers())],
            read=_shard_and_index,
            beside=folder / "unread",
            structured=False,
        ),
        Reader(
            name="indexes",
            share=6,
            files=[(str(path.relative_to(folder / "shards")), path.read_bytes()) for path in index],
            read=_shard_and_index,
            beside=folder / "shards",
        ),
        Reader(
            name="index.json",
            share=6,
            files=[("shards/index.json", _index(shards))],
            read=_shard_and_index,
            beside=folder / "unread",
        ),
        Reader(name="sidecars", share=14, files=_sidecars(), read=_sidecar),
        Reader(
            name="Q-Former tokenizer",
            share=8,
            files=_files(DEMO / "bert", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json"),
            read=lambda folder, _: load_qformer_tokenizer(str(folder)),
            beside=DEMO / "bert",
        ),
        Reader(
            name="language model's files",
            share=4,
            files=_files(language, *sorted(path.name for path in language.glob("*.json"))),
            read=_language,
            beside=language,
        ),
        Reader(
            name="Hugging Face folder",
            share=8,
            files=_files(folder / "configs", *sorted(p.name for p in (folder / "configs").glob("*config.json"))),
            read=_huggingface,
            beside=folder / "configs",
        ),
        Reader(
            name="BERT's config.json",
            share=6,
            files=_files(DEMO / "bert", "config.json"),
            read=lambda folder, _: read_bert_config(str(folder)),
            beside=DEMO / "bert",
        ),
        Reader(
            name="configuration of an export",
            share=8,
            files=[("config.yaml", _configuration())],
            read=lambda _, path: parse_yaml(path.read_bytes().decode(errors="replace"), path, "export it again"),
            structured=False,
        ),
        Reader(
            name="settings", share=4, files=[("settings", one) for one in _SETTINGS], read=_overrides, structured=False
        ),
        Reader(name="recipes", share=1, files=[("experiment/mine.yaml", _RECIPE)], read=_recipe, structured=False),
        Reader(
            name="images",
            share=10,
            files=images,
            read=lambda _, path: decode_image(path.read_bytes()),
            structured=False,
        ),
        Reader(
            name="weights",
            share=6,
            files=_files(Path(exports["stage1"]), "model.safetensors"),
            read=lambda folder, _: read_weights(folder),
            structured=False,
        ),
    ]


_SETTINGS = (
    b"steps=1000\noptim.lr=1e-3\nmodel.qformer.num_queries=8",
    b"optim.betas=[0.9,0.98]\ndata=shards\ndata.source='/data/{000..009}.tar'",
    b"callbacks.more={_target_: blip2_train.training.sample_log.SampleLog, folder: x}\nseed=3",
    b"trainer=cpu\nlogger=csv\nvalidate_every=null\ncheckpoint_every=5",
    b"model.vision.overrides={patch_size: 12, embed_dim: 16}\n~optim.betas\n+optim.betas=[0.9,0.99]",
)
_RECIPE = (
    b"# @package _global_\n# Mine\ndefaults: [demo_stage1, _self_]\nsteps: 300\noptim: {lr: 1e-3, betas: [0.9, 0.98]}\n"
)


def _without_checksum(content: bytes) -> bytes:
    """A manifest as somebody leaves it who changes it by hand: a checksum would refuse all that is changed."""
    return json.dumps({key: value for key, value in json.loads(content).items() if key != "crc32"}).encode()


def _no_weights(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors")]


def _files(folder: Path, *names: str) -> list[tuple[str, bytes]]:
    return [(name, (folder / name).read_bytes()) for name in names if (folder / name).is_file()]


def _laid(folder: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    for name, content in files:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _huggingface_folder(export: str, folder: Path) -> Path:
    from blip2_train.cli.convert_checkpoint import main

    main([export, "--format", "huggingface", "--to", str(folder)])
    return folder


def _configuration() -> bytes:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(compose(["experiment=demo_stage1"]), resolve=True).encode()


def _sidecars() -> list[tuple[str, bytes]]:
    record = {"caption": "a red cat", "url": "https://example.org/x.jpg", "status": "success", "exif": '{"a": 1}'}
    many = {
        "captions": ["a cat", None, "a dog"],
        "caption_scores": [1.0, 0.5],
        "exif": json.dumps({"Image Orientation": "6"}),
    }
    contents = [record, many, ["a cat", "a dog"], {"image_id": 7, "caption": "a", "id": "x"}]
    return [("a.json", json.dumps(one).encode()) for one in contents] + [("a.txt", "a red cat – café".encode())]


def _index(shards: Sequence[Path]) -> bytes:
    listed = [{"file": path.name, "samples": 4, "bytes": path.stat().st_size, "sha256": "0" * 64} for path in shards]
    return json.dumps({"format": 1, "shards": listed, "rejected": {}, "settings": {"source": "x"}}).encode()


def _headers() -> bytes:
    """A tar with what GNU and POSIX headers can hold: long names, records of pax, links, a sparse file's kind."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in [*sample("a"), *sample("b" * 150), *sample("c/d.e")]:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), {"comment": "é", "mtime": "1.5"}
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "../../outside"
        tar.addfile(link)
    return file.getvalue()
