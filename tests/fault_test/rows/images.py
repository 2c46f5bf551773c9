"""Images that are cut, hide something, or are of a rare kind."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
from fault_test.desk import Desk
from fault_test.table import row
from PIL import Image
from shard_files import encode, image

GROUP = "images"


def described(desk: Desk, name: str, content: bytes) -> tuple[int, dict[str, str], str]:
    """Exit code, line and errors of an image's description."""
    path = desk.folder / "images" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    model = ("--model", desk.world.opt, "--device", "cpu", "--max-new-tokens", "2")
    ended = desk.run("predict", "caption", *model, path.parent)
    output = ended.out + ended.err
    assert "Traceback" not in output, output[-500:]
    desk.clean(output)
    (line,) = [line for line in ended.out.splitlines() if line.startswith("{")]
    if ended.code:
        desk.one_line(ended, "could not be read|no image that can be read")
    return ended.code, json.loads(line), desk.short(" ".join(ended.errors))


def unreadable(name: str, content: bytes, file: str = "a.jpg") -> None:
    """A row with an image that cannot be read."""

    def action(desk: Desk) -> str:
        code, line, message = described(desk, file, content)
        assert code == 2 and "error" in line, (code, line)
        return f"{code}, {message}"

    row(GROUP, name)(action)


def readable(name: str, content: bytes, file: str) -> None:
    """A row with an image that is odd, and can be read."""

    def action(desk: Desk) -> str:
        code, line, _ = described(desk, file, content)
        assert code == 0 and "caption" in line, (code, line)
        return f"{code}, described"

    row(GROUP, name)(action)


def bomb() -> bytes:
    """A PNG whose header has 100,000 × 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 9999)) + chunk(b"IEND", b"")


unreadable("a JPEG that is cut", image()[:200])
unreadable("a text that is called JPEG", b"no image")
unreadable("an image whose header asks for 10,000 megapixels", bomb(), "a.png")
unreadable("an empty file", b"", "a.png")
unreadable("a broken image whose name holds escapes", b"no image", "a\x1b[2J\x9b\nerror: b.jpg")
readable("a JPEG in CMYK", encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), "a.jpg")
readable("a PNG of 16 bits", encode(Image.fromarray(np.full((20, 20), 40_000, np.uint16)), "PNG"), "a.png")
readable("a PNG that is called JPEG", image(form="PNG"), "a.jpg")
