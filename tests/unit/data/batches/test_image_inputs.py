"""Every kind of image that `docs/use.md` lists is read, the same one alike, and what is none of them is one line."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from web_server import LOOPBACK, content, serving

from blip2_train.data.batches.image_inputs import PixelValues, listed, open_image
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.data.storage.web import WebLimits
from blip2_train.errors import ConfigError, ShardError

SIZE = 20
PROCESSOR = Processor(
    image_size=SIZE, mean=CLIP_MEAN, std=CLIP_STD, max_text_length=8, web=WebLimits(private_networks=(LOOPBACK,))
)
LEVELS = np.random.default_rng(0).integers(0, 256, (17, 30, 3), dtype=np.uint8)
FLAT = np.full((SIZE, SIZE, 3), 140, np.uint8)
"""An image of one grey, whose pixel values lie in 0 … 1 as those of an image do."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(LEVELS).save(path)
    return path


@pytest.fixture(scope="module")
def address(file: Path) -> Iterator[str]:
    with serving({"/a.png": content(file.read_bytes()), "/text": content(b"no image")}) as server:
        yield f"http://127.0.0.1:{server.port}"


def floats() -> np.ndarray[Any, Any]:
    return LEVELS.astype(np.float64) / 255


KINDS: dict[str, Callable[[Path, str], list[Any]]] = {
    "path": lambda file, at: [file, str(file)],
    "address": lambda file, at: [f"{at}/a.png"],
    "PIL image": lambda file, at: [Image.fromarray(LEVELS), Image.open(file)],
    "NumPy array": lambda file, at: [LEVELS, LEVELS[:, ::-1][:, ::-1], floats(), floats().astype(np.float32)],
    "tensor": lambda file, at: [
        torch.from_numpy(LEVELS).permute(2, 0, 1),
        torch.from_numpy(floats()).permute(2, 0, 1),
        torch.from_numpy(floats()).permute(2, 0, 1).half(),
        torch.from_numpy(floats()).permute(2, 0, 1).float().requires_grad_(),
    ],
    "content of a file": lambda file, at: [kind(file.read_bytes()) for kind in (bytes, bytearray, memoryview)],
    "open file": lambda file, at: [file.open("rb"), io.BytesIO(file.read_bytes())],
    "pixel values": lambda file, at: [PROCESSOR.image(file), PROCESSOR.image(file).clone()],
    "several": lambda file, at: [],
}  # fmt: skip


def test_the_page_lists_the_kinds(root: Path) -> None:
    table = (root / "docs/use.md").read_text("utf-8").split("| an image is given as |")[1].split("\n\n")[0]
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_the_same_pixel_values(kind: str, file: Path, address: str) -> None:
    expected = PROCESSOR.image(Image.fromarray(LEVELS))
    for image in KINDS[kind](file, address):
        assert torch.equal(PROCESSOR.image(image), expected), type(image)
    for image in KINDS[kind](file, address):
        assert len(given := listed(image)) == 1
        assert torch.equal(PROCESSOR.images(given)[0], expected)


def test_several_are_each_of_them(file: Path, address: str) -> None:
    expected = PROCESSOR.image(file)
    every = [image for make in KINDS.values() for image in make(file, address)]
    assert len(every) > 15
    stack = torch.from_numpy(LEVELS).permute(2, 0, 1).expand(3, -1, -1, -1)
    for count, images in (
        (len(every), every),
        (3, (image for image in [file, LEVELS, f"{address}/a.png"])),
        (2, np.stack([LEVELS, LEVELS])),
        (2, np.array([str(file), str(file)])),
        (3, stack),
        (3, tuple(stack)),
        (2, PROCESSOR.images([file, LEVELS])),
        (2, map(Path, [file, file])),
    ):
        pixels = PROCESSOR.images(images)  # type: ignore[arg-type]
        assert pixels.shape == (count, 3, SIZE, SIZE) and all(torch.equal(one, expected) for one in pixels)


def test_pixel_values_are_known_from_images_in_0_to_1() -> None:
    """A grey image's pixel values could be an image as well: those of a processor are known all the same."""
    grey, more = PROCESSOR.image(FLAT), PROCESSOR.images([FLAT, FLAT])
    assert grey.min() > 0 and grey.max() < 1
    image = torch.from_numpy(FLAT / 255).float().permute(2, 0, 1)
    assert torch.equal(PROCESSOR.image(image), grey) and image.shape == grey.shape
    for same in (grey, more, list(more), more[1], more.to("cpu"), [more[0].to(torch.float64).to(torch.float32)]):
        assert torch.equal(PROCESSOR.images(same)[-1], grey)
    normalised = torch.randn(3, SIZE, SIZE)
    assert torch.equal(PROCESSOR.image(normalised), normalised)
    assert type(grey) is PixelValues and type(grey + 0) is torch.Tensor, "nothing computed is pixel values any more"


def test_an_open_file_is_read_once_for_all_that_uses_it(file: Path) -> None:
    first, second = listed([io.BytesIO(file.read_bytes())] * 1) * 2
    assert torch.equal(PROCESSOR.image(first), PROCESSOR.image(second))
    opened = file.open("rb")
    listed(opened)
    with pytest.raises(ShardError, match=r"a\.png is no image that can be read \(nothing is left to read"):
        PROCESSOR.image(opened)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "given as None; give a path, an http"),
        ({"image": "a.jpg"}, "given as a dict; give"),
        (7, "given as a int; give"),
        (["a.jpg"], "given as a list; give"),
        (LEVELS[..., 0], r"a ndarray of uint8, shape \(17, 30\); give .* a NumPy array \(H, W, 3\)"),
        (LEVELS.transpose(2, 0, 1), r"shape \(3, 17, 30\)"),
        (LEVELS.astype(np.int64), r"of int64, shape \(17, 30, 3\), with values \d+ … 255; .* of float in 0 … 1"),
        (LEVELS.astype(np.float32), r"of float32, shape \(17, 30, 3\), with values \d+ … 255"),
        (np.full((4, 4, 3), np.nan), r"with values nan … nan"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), complex), r"of complex128, shape \(4, 4, 3\)"),
        (torch.zeros(17, 30, 3), r"a Tensor of float32, shape \(17, 30, 3\)"),
        (torch.from_numpy(LEVELS).permute(2, 0, 1).float(), r"of float32, shape \(3, 17, 30\), with values \d+ … 255"),
        (torch.zeros(3, 4, 4, dtype=torch.bool), "a Tensor of bool"),
        (torch.full((3, SIZE, SIZE), torch.nan), "with values nan … nan"),
        (torch.full((3, SIZE, SIZE), 200.0), "with values 200 … 200"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_one_line_of_what_is_taken(image: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"an image is .*{words}") as caught:
        PROCESSOR.image(image)
    assert "\n" not in str(caught.value)


def test_what_holds_no_images_is_one_line_too(file: Path) -> None:
    for images in (None, 7, {"a": file}):
        with pytest.raises(ConfigError, match=r"an image is given as .*; give a path"):
            listed(images)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"a\.png is read as str; open it in binary mode"):
        listed(file.open("r", encoding="latin-1"))  # type: ignore[arg-type]


def test_pixel_values_of_another_size_are_refused() -> None:
    for values in (PixelValues.of(torch.zeros(3, 21, 20)), torch.randn(3, 21, 20)):
        with pytest.raises(ConfigError, match=r"shape \(3, 21, 20\), but this model reads \(3, 20, 20\)"):
            PROCESSOR.images([values])


def test_what_cannot_be_read_is_named(file: Path, address: str) -> None:
    for image, words in (
        (b"no image", "what is given as 8 bytes is no image"),
        (io.BytesIO(b"no image"), "a BytesIO is no image"),
        (f"{address}/text?key=secret", r"http://127\.0\.0\.1:\d+/text\?… is no image"),
        ("a\0.png", "embedded null byte"),
        ("s3://bucket/a.jpg", "is no address of an image; give http"),
        ("http://me:secret@exa\u2100mple.org/a.jpg", "is no address that can be read"),
        ("s3://bucket/a.jpg#secret", r"s3://bucket/a.jpg is no address"),
        ("~$a.jpg", r"~\$a.jpg is no image"),
    ):
        with pytest.raises((ShardError, ConfigError), match=words) as caught:
            open_image(image, PROCESSOR.web)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"is at 127\.0\.0\.1, which is not public"):
        open_image(f"{address}/a.png")
