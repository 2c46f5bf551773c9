"""Small tar shards and tokenizers, for tests."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = "a b c d e f g h i j k l m n o p q r s t u v w x y z red green blue cat dog the on of and , ' ? - / ##s".split()


def write_tokenizer(folder: Path, words: Iterable[str] = WORDS) -> str:
    """A folder with a WordPiece vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return str(folder)


def image(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (24, 16), form: str = "JPEG") -> bytes:
    """An image file of one colour."""
    return encode(Image.new("RGB", size, colour), form)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    """The file of an image."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes | str]]) -> Path:
    """A tar with these files, names may repeat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, caption: str = "a red cat") -> list[tuple[str, bytes | str]]:
    """The members that img2dataset writes for a sample; the colour of the image follows from the key."""
    number = sum(map(ord, key)) * 37
    colour = (number % 256, number // 3 % 256, number // 7 % 256)
    return [
        (f"{key}.jpg", image(colour)),
        (f"{key}.txt", caption),
        (f"{key}.json", json.dumps({"caption": caption, "url": "https://example.org/x.jpg", "status": "success"})),
    ]


def write_shards(folder: Path, sizes: Iterable[int]) -> Path:
    """Shards `00000.tar`, … with `sizes` samples; captions name shard and sample in letters."""
    for shard, size in enumerate(sizes):
        names = [f"{shard:05d}{number:04d}" for number in range(size)]
        members = [member for name in names for member in sample(name, f"a cat {' '.join(letters(name))}")]
        write_tar(folder / f"{shard:05d}.tar", members)
    return folder


def write_many_shards(folder: Path, count: int) -> Path:
    """`count` shards of two samples; they are links to four files, as only their number matters."""
    for first in range(4):
        members = [*sample(f"{first}0", f"a {'abcd'[first]}"), *sample(f"{first}1", f"b {'abcd'[first]}")]
        write_tar(folder / f"{first:05d}.tar", members)
    for number in range(4, count):
        os.link(folder / f"{number % 4:05d}.tar", folder / f"{number:05d}.tar")
    return folder


def letters(digits: str) -> list[str]:
    """Digits as letters, so that the tiny vocabulary has them."""
    return [chr(ord("a") + int(digit)) for digit in digits]


ALT_TEXTS = [
    "A red \U0001f697 parked\u2028on the street\nnear <PERSON>",
    "https://example.org/shop?id=7&ref=a_b#top",
    "IMG_20190704_113355.JPG \u2013 \u00a9 2019 <PERSON> / All rights reserved!!!",
    "\u72ac \u043a\u043e\u0442 caf\u00e9 \u200d\u200b\u00a0na\u00efve " + "long " * 300,
    "\U0001f389\U0001f389",
    "\ufeffquoted \"text\" with 'marks', 50% off; buy now ~*~",
]


def _web_images() -> list[tuple[str, bytes]]:
    noise = np.random.default_rng(0)
    large = Image.fromarray(noise.integers(0, 255, (1500, 2000, 3), dtype=np.uint8))
    palette = large.resize((60, 40)).quantize(16)
    turned = Image.Exif()
    turned[0x0112] = 8
    return [
        ("jpg", encode(large, "JPEG", quality=80)),
        ("jpg", encode(large.resize((300, 20)), "JPEG", exif=turned)),
        ("jpg", encode(large.resize((50, 70)).convert("CMYK"), "JPEG")),
        ("jpg", encode(large.resize((50, 70)).convert("L"), "JPEG", progressive=True)),
        ("png", encode(palette, "PNG")),
        ("png", encode(palette, "PNG", transparency=3)),
        ("png", encode(large.resize((33, 31)).convert("RGBA"), "PNG")),
        ("png", encode(large.resize((33, 31)).convert("LA"), "PNG")),
        ("png", encode(Image.fromarray(noise.integers(0, 65535, (20, 30), dtype=np.uint16)), "PNG")),
        ("png", encode(large.resize((9, 9)).convert("1"), "PNG")),
        ("webp", encode(large.resize((64, 48)).convert("RGBA"), "WEBP")),
        ("jpg", image(size=(1, 1))),
        ("jpg", encode(large.resize((40, 40)), "PNG")),  # the extension is wrong, as on the web
    ]


def write_web_shard(folder: Path) -> Path:
    """A shard as img2dataset writes it, with its statistics beside it: odd images, alt texts as the web has them."""
    members: list[tuple[str, bytes | str]] = []
    for number, (extension, data) in enumerate(_web_images()):
        key, text = f"{number:09d}", ALT_TEXTS[number % len(ALT_TEXTS)]
        facts = {"caption": text, "url": "https://example.org/a.jpg", "key": key, "status": "success", "exif": "{}"}
        members += [(f"{key}.{extension}", data), (f"{key}.json", json.dumps(facts)), (f"{key}.txt", text)]
    write_tar(folder / "00000.tar", members)
    (folder / "00000.parquet").write_bytes(b"PAR1")
    (folder / "00000_stats.json").write_text("{}")
    return folder
