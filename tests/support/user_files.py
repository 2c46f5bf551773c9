"""Files of the kinds that public reports and public data sets hold, made anew, for tests: what real users bring."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from shard_files import encode
from shard_files import image as coloured_image

COUNT = 24
THINGS = ("red cat", "blue cat", "green dog", "x dog", "y cat", "z dog")
Member = tuple[str | bytes, bytes | str]
Pairs = Iterator[tuple[str, bytes | str]]


def caption(number: int, more: str = "") -> str:
    """Six words, all in the tiny vocabulary."""
    return f"a {THINGS[number % 6]} on the q{more}"


def image(number: int, form: str = "JPEG") -> bytes:
    return coloured_image((number * 10, 255 - number * 9, number * 37 % 256), (30, 22), form)


def write(path: Path, content: Any) -> str:
    """Texts and bytes as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def lines(entries: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def write_images(folder: Path, names: Iterable[str] | None = None) -> Path:
    for number, name in enumerate(names or (f"{n:03d}.jpg" for n in range(COUNT))):
        write(folder / name, image(number, "TIFF" if name.endswith(".tif") else "JPEG"))
    return folder


def write_tar(path: Path, members: Iterable[Member]) -> Path:
    """A tar file, in which a name in bytes stands as these bytes, as Windows' tar writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, errors="surrogateescape") as tar:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(os.fsdecode(name))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.parent


def pairs(numbers: Iterable[int] = range(COUNT), image_ending: str = "jpg", text_ending: str = "txt") -> Pairs:
    for number in numbers:
        form = "TIFF" if image_ending == "tif" else "JPEG"
        yield f"{number:03d}.{image_ending}", image(number, form)
        yield f"{number:03d}.{text_ending}", caption(number)


def tars(folder: Path) -> dict[str, Path]:
    """Shards by what is unusual in them, each in a folder of its own."""
    stems = [b"caf\xe9\x92" if n == 5 else b"" for n in range(COUNT)]
    latin = [(stems[n // 2] + name.encode(), data) for n, (name, data) in enumerate(pairs())]
    apart = sorted(pairs(), key=lambda member: member[0].endswith(".txt"))
    mac = [(lead + name, b"\0\5\26\7" * 30 if lead else data) for name, data in pairs() for lead in ("._", "")]
    blank = [(name, "" if name.endswith(".txt") and int(name[:3]) % 2 else data) for name, data in pairs()]
    keys = [
        member
        for n in range(COUNT)
        for member in ((f"{n:03d}.jpg", image(n)), (f"{n:03d}.json", json.dumps({"blip_caption": caption(n)})))
    ]
    contents: dict[str, Iterable[Member]] = {
        "latin_names": latin,
        "apart": apart,
        "mac": mac,
        "upper": pairs(image_ending="JPG", text_ending="TXT"),
        "tif": pairs(image_ending="tif"),
        "text": pairs(text_ending="caption"),
        "nullcap": blank,
        "jsonkeys": keys,
    }
    paths = {name: write_tar(folder / name / "00000.tar", members) for name, members in contents.items()}
    for shard in range(4):
        paths["braces"] = write_tar(folder / f"braces/{shard:03d}.tar", pairs(range(shard * 6, shard * 6 + 6)))
    return paths


def write_captioned(folder: Path) -> Path:
    """Images with captions in files of several layouts."""
    write_images(folder)
    captions = [{"image": f"{n:03d}.jpg", "caption": caption(n) + " \ud83d" * (n == 5)} for n in range(COUNT)]
    write(folder / "half.jsonl", lines(captions))
    listed = ["raw,sentids,split,filename,img_id"]
    for n in range(COUNT):
        cell = json.dumps([caption(n), caption(n, " .")]).replace('"', '""')
        listed.append(f'"{cell}","[{2 * n}, {2 * n + 1}]",train,{n:03d}.jpg,{n}')
    write(folder / "listed.csv", "\n".join(listed))
    tokens = "".join(f"{n:03d}.jpg#{k}\t{caption(n, ' .')}\n" for n in range(COUNT) for k in range(2))
    write(folder / "flickr.token", tokens)
    write(folder / "flickr.token.tsv", tokens)
    cells = "".join(f'{n:03d}.jpg,"{caption(n, ", on a dog .")}"\n' for n in range(COUNT) for k in range(2))
    write(folder / "captions.txt", "image,caption\n" + cells)
    rows = "".join(f"{n:03d}.jpg| {k}| {caption(n, ', on a dog .')}\n" for n in range(COUNT) for k in range(2))
    write(folder / "pipes.csv", "image_name| comment_number| comment\n" + rows)
    chats = [{"from": "human", "value": "Describe it.\n<image>"}, {"from": "gpt", "value": "a cat"}]
    write(folder / "chat.json", [{"id": f"{n:03d}", "image": f"{n:03d}.jpg", "conversations": chats} for n in range(9)])
    flat = [{"id": 900 + n, "image": n, "question": "a cat on the dog?", "answer": "a cat."} for n in range(COUNT)]
    write(folder / "vg_flat.json", flat)
    return folder


def write_coco(folder: Path) -> Path:
    """Annotations and predictions in COCO's layout, in the spellings in which people have them."""
    images = [{"id": n, "file_name": f"{n:03d}.jpg"} for n in range(COUNT)]
    notes = [
        {"id": 5 * n + k, "image_id": n, "caption": caption(n, f" number {k}")} for n in range(COUNT) for k in range(5)
    ]
    captions = [{"image_id": n, "caption": caption(n)} for n in range(COUNT)]

    def named(entries: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
        return [entry | {key: f"img_{entry[key]:03d}"} for entry in entries]

    def accented(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [entry | {"caption": f"café naïve – “{entry['caption']}” 東京"} for entry in entries]

    write(folder / "annotations.json", {"images": images, "annotations": notes})
    write(folder / "no_file_name.json", {"images": [{"id": n} for n in range(COUNT)], "annotations": notes})
    write(folder / "named.json", {"images": named(images, "id"), "annotations": named(notes, "image_id")})
    write(folder / "accent_notes.json", {"images": images, "annotations": accented(notes)})
    write(folder / "results.json", captions)
    write(folder / "results.jsonl", lines(captions))
    write(folder / "results_int.json", [entry | {"id": n} for n, entry in enumerate(captions)])
    write(folder / "results_part.json", captions[:8])
    write(folder / "named_results.json", named(captions, "image_id"))
    write(folder / "accents.json", accented(captions))
    write(folder / "surrogate.json", [*captions[:-1], captions[-1] | {"caption": f"{captions[-1]['caption']} \ud83d"}])
    return folder


def write_rsicd(folder: Path) -> Path:
    """Karpathy's layout with classes in the names of images, whose digits come again in each class."""
    names = [f"{('airport', 'bridge', 'farm')[n % 3]}_{n // 3}" for n in range(COUNT)]
    for ending in ("jpg", "tif"):
        write_images(folder / "images", [f"{name}.{ending}" for name in names])
        entries = [
            {
                "filename": f"{name}.{ending}",
                "imgid": n,
                "split": "train" if n < 16 else "val" if n < 20 else "test",
                "sentences": [{"raw": caption(n), "tokens": caption(n).split(), "imgid": n, "sentid": n}],
            }
            for n, name in enumerate(names)
        ]
        write(folder / f"dataset_{ending}.json", {"dataset": "rsicd", "images": entries})
    return folder


def write_questions(folder: Path) -> Path:
    """Questions and answers as TextVQA, VQA-CP, VQAv2 and people of their own write them."""
    everyone = [{"answer_id": k + 1, "answer": "yes", "answer_confidence": "yes"} for k in range(10)]
    questions = [{"question_id": n, "image_id": n, "question": "is it red?"} for n in range(COUNT)]
    answers = [{"question_id": n, "image_id": n, "answers": everyone, "answer_type": "yes/no"} for n in range(COUNT)]
    own = [{"question_id": n, "image": f"{n:03d}.jpg", "question": "is it a cat?"} for n in range(COUNT)]
    write(folder / "questions.json", {"data_subtype": "val2014", "questions": questions})
    write(folder / "annotations.json", {"data_subtype": "val2014", "annotations": answers})
    write(folder / "annotations_v1.json", {"data_subtype": "val2014", "annotations": answers[:-6]})
    write(folder / "cp_questions.json", questions)
    write(folder / "cp_annotations.json", answers)
    write(folder / "list_int.json", [entry | {"answer": n % 3} for n, entry in enumerate(own)])
    write(folder / "list.jsonl", lines(entry | {"answer": "a cat"} for entry in own))
    bare = [{"question_id": f"003a8ae2ef43b9{n:02d}", "image": f"{n:03d}.jpg"} for n in range(9)]
    write(folder / "textvqa.jsonl", lines(entry | {"text": "what?\nReference OCR token: A"} for entry in bare))
    write(folder / "results.json", [{"question_id": n, "answer": "yes"} for n in range(COUNT)])
    write(folder / "results_conf.json", [{"question_id": n, "answer": 2 if n == 3 else "yes"} for n in range(COUNT)])
    return folder


def write_odd_images(folder: Path) -> Path:
    """Images of several kinds and some files that are none, with captions."""
    first, second = (Image.new("RGB", (30, 22), colour) for colour in ("red", "blue"))
    write(folder / "several.jpg", encode(first, "MPO", save_all=True, append_images=[second]))
    write(folder / "avif.avif", encode(first, "AVIF"))
    write(folder / "avif_as.jpg", encode(first, "AVIF"))
    write(folder / "tiff.tif", encode(first, "TIFF"))
    write(folder / "cmyk.jpg", encode(first.convert("CMYK"), "JPEG"))
    write(folder / "notes.txt", "a cat")
    write(folder / "._tiff.tif", b"\0\5\26\7" * 30)
    names = ("several.jpg", "avif.avif", "avif_as.jpg", "tiff.tif", "cmyk.jpg")
    write(folder / "captions.jsonl", lines({"image": name, "caption": caption(n)} for n, name in enumerate(names)))
    return folder


def write_latin_folder(folder: Path) -> Path:
    """Images beside their captions, the name of one of which is in Latin 1."""
    folder.mkdir(parents=True)
    for n in range(8):
        stem = os.fsencode(folder) + b"/" + (b"caf\xe9" if n == 5 else b"") + str(n).encode()
        for ending, content in ((b".jpg", image(n)), (b".txt", caption(n).encode())):
            with open(stem + ending, "wb") as file:
                file.write(content)
    return folder
