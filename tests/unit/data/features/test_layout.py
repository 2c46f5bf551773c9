"""The stored numbers of one crop."""

import pytest
import torch
from safetensors.torch import load

from blip2_train.data.features.layout import FeatureLayout
from blip2_train.errors import ConfigError, ShardError


def features(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows of very different sizes, one with a number a hundred times larger than the others, and one of zeros."""
    rows = torch.randn(7, 40, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 3, 7)[:, None]
    rows[3, 5], rows[6] = 100 * rows[3].abs().max(), 0.0
    return rows.to(dtype)


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 32), ("float16", 16), ("bfloat16", 16)])
def test_what_a_tower_computes_in_so_many_bits_is_kept(dtype: str, bits: int) -> None:
    layout = FeatureLayout(patches=7, width=40, dtype=dtype, bits=bits)
    rows = features(getattr(torch, dtype))
    read = layout.decode(layout.encode(rows))
    assert read.dtype == rows.dtype and torch.equal(read, rows)


@pytest.mark.parametrize(("bits", "step"), [(16, 1 / 32767), (8, 1 / 127)])
def test_rounded_numbers_are_off_by_half_a_step_of_their_row(bits: int, step: float) -> None:
    layout, rows = FeatureLayout(patches=7, width=40, dtype="float32", bits=bits), features()
    off = (layout.decode(layout.encode(rows)) - rows).abs().amax(dim=1)
    allowed = rows.abs().amax(dim=1) * step / 2
    assert (off <= allowed * 1.001).all() and (off[:6] > allowed[:6] / 4).all() and off[6] == 0


def test_numbers_of_a_16_bit_tower_in_8_bits_come_back_in_16() -> None:
    layout = FeatureLayout(patches=7, width=40, dtype="float16", bits=8)
    read = layout.decode(layout.encode(features(torch.float16)))
    assert read.dtype == torch.float16
    assert (read - features(torch.float16)).abs().max() <= features().abs().max() / 127


def test_a_file_is_safetensors_of_the_size_that_was_foreseen() -> None:
    for bits in (8, 16, 32):
        layout = FeatureLayout(patches=7, width=40, dtype="float32", bits=bits)
        content = layout.encode(features())
        assert len(content) == layout.size and (layout.stride - 512) % 512 == 0 and layout.stride - 512 >= layout.size
        parts = load(content)
        assert parts["features"].shape == (7, 40) and ("scales" in parts) == (bits != 32)


def test_the_paper_s_features_take_724_kilobytes() -> None:
    layout = FeatureLayout(patches=257, width=1408, dtype="float16", bits=16)
    assert layout.size - 2 * 257 * 1408 < 200 and round(layout.size / 1000) == 724


def test_what_cannot_be_stored_or_read_is_refused() -> None:
    layout = FeatureLayout(patches=7, width=40, dtype="float32", bits=16)
    with pytest.raises(ShardError, match="not finite"):
        layout.encode(features() / 0)
    content = layout.encode(features())
    for damaged in (content[:-1], b"\0" + content[1:], b""):
        with pytest.raises(ShardError, match="not what was written"):
            layout.decode(damaged)
    with pytest.raises(ConfigError, match="8, 16 or 32"):
        FeatureLayout(patches=7, width=40, dtype="float32", bits=4)
    with pytest.raises(ConfigError, match="dtype must be float32, float16, bfloat16, got 'float8'"):
        FeatureLayout(patches=7, width=40, dtype="float8", bits=8)
    with pytest.raises(ConfigError, match="16 bits hold"):
        FeatureLayout(patches=7, width=40, dtype="float16", bits=32)
