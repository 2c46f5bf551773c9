"""Small tar shards and tokenizers, for tests."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

WORDS = "a b c d e f g h i j k l m n o p q r s t u v w x y z red green blue cat dog the on of and , ' ? - / ##s".split()


def write_tokenizer(folder: Path, words: Iterable[str] = WORDS) -> str:
    """A folder with a WordPiece vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return str(folder)


def picture(
    colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (24, 16), form: str = "JPEG"
) -> bytes:
    """A picture file of one colour."""
    return encode(Image.new("RGB", size, colour), form)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    """The file of a picture."""
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
    """The members that img2dataset writes for a sample; the colour of the picture follows from the key."""
    number = sum(map(ord, key)) * 37
    colour = (number % 256, number // 3 % 256, number // 7 % 256)
    return [
        (f"{key}.jpg", picture(colour)),
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


def letters(digits: str) -> list[str]:
    """Digits as letters, so that the tiny vocabulary has them."""
    return [chr(ord("a") + int(digit)) for digit in digits]
