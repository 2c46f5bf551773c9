import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from report_cases import image

from blip2_train.evaluation.report.content import AttentionView
from blip2_train.evaluation.report.image_data import (
    attention_views,
    embed_image,
    heat_addresses,
    heat_layer,
    times_uniform,
)


def decode(address: str) -> Image.Image:
    head, _, content = address.partition(",")
    assert head in ("data:image/webp;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize(
    ("size", "expected"), [((60, 40), (60, 40)), ((1280, 640), (320, 160)), ((100, 800), (40, 320))]
)
def test_large_images_are_made_smaller_and_keep_their_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    embedded = embed_image(image(3, size))
    assert embedded is not None and (embedded.width, embedded.height) == expected
    shown = decode(embedded.address)
    assert shown.size == expected
    assert np.abs(np.asarray(shown.convert("RGB"))[-1, -1].astype(int) - [120, 90, 200]).max() < 12


def test_where_a_image_was_taken_stays_private() -> None:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif, icc_profile=b"profile", comment=b"secret")
    embedded = embed_image(file.getvalue())
    assert embedded is not None
    shown = decode(embedded.address)
    assert not shown.getexif() and not {"exif", "icc_profile", "comment"} & set(shown.info)


def test_unreadable_images_are_none(tmp_path: Path) -> None:
    assert embed_image(b"<svg onload=alert(1)>") is None
    assert embed_image(tmp_path / "absent.png") is None
    assert embed_image(image(1)[:200]) is None


def test_the_heat_is_strongest_where_the_map_is_and_nothing_is_shifted() -> None:
    heat = torch.zeros(6, 8)
    heat[1, 6] = 0.5
    layer = Image.open(io.BytesIO(heat_layer(heat))).convert("RGBA")
    assert layer.size == (48, 36), "six times finer"
    values = np.asarray(layer).astype(int)
    brightness = values[..., :3].sum(-1)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert 6 <= row < 12 and 36 <= column < 42, "patch (1, 6) covers rows 6 to 11 and columns 36 to 41"
    assert brightness[30, 3] < 30, "far away it is dark"
    assert values[30, 3, 3] > values[row, column, 3] > 0, "and darker means less to be seen of the image"


def test_an_empty_map_is_dark_and_an_even_one_is_bright_all_over() -> None:
    for heat, low, high in ((torch.zeros(4, 4), 0, 30), (torch.full((4, 4), 0.1), 600, 765)):
        values = np.asarray(Image.open(io.BytesIO(heat_layer(heat))).convert("RGBA")).astype(int)[..., :3].sum(-1)
        assert low <= values.min() and values.max() <= high


def test_maps_of_one_scale_can_be_compared() -> None:
    alone, beside = (Image.open(io.BytesIO(heat_layer(torch.full((4, 4), 0.1), top))) for top in (None, 0.4))
    bright, dim = (int(np.asarray(layer.convert("RGB")).astype(int).sum(-1).min()) for layer in (alone, beside))
    assert bright > 2 * dim > 0


def test_views_are_the_mean_the_strongest_and_the_sharpest_queries() -> None:
    maps = torch.full((3, 2, 2), 0.25)
    maps[1] = torch.tensor([[0.97, 0.01], [0.01, 0.01]])
    maps[2] = torch.tensor([[0.0, 0.3], [0.3, 0.0]])
    views = attention_views(maps, sharpest=2)
    assert [view.label for view in views] == ["mean of queries", "strongest query", "query 1", "query 2"]
    torch.testing.assert_close(views[0].heat, maps.mean(0))
    torch.testing.assert_close(views[1].heat, torch.tensor([[0.97, 0.3], [0.3, 0.25]]))
    torch.testing.assert_close(views[2].heat, maps[1])
    assert times_uniform(maps[0]) == 1 and times_uniform(maps[1]) == pytest.approx(3.88)
    ((label, address),) = heat_addresses([AttentionView(label="query 1", heat=maps[1])])
    assert label == "query 1, ≤ 3.9×" and decode(address).size == (48, 48)
