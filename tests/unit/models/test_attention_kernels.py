"""A kernel that is turned off is not run, whatever else could."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import profile

from blip2_train.errors import ConfigError
from blip2_train.models.attention_kernels import KERNELS, turn_kernels_off

SWITCHES = {"cudnn": "cudnn_sdp", "flash": "flash_sdp", "efficient": "mem_efficient_sdp", "math": "math_sdp"}


def on() -> set[str]:
    return {name for name, switch in SWITCHES.items() if getattr(torch.backends.cuda, f"{switch}_enabled")()}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = on()
    yield
    for name, switch in SWITCHES.items():
        getattr(torch.backends.cuda, f"enable_{switch}")(name in before)


def kernels() -> set[str]:
    """Operations that one attention runs."""
    query = torch.randn(1, 2, 4, 8)
    with profile() as seen:
        scaled_dot_product_attention(query, query, query)
    return {event.name for event in seen.events() if "scaled_dot_product" in event.name and event.name[6:].count("_")}


def test_another_kernel_is_used_instead() -> None:
    assert any("flash" in name for name in kernels())
    turn_kernels_off(["flash"])
    assert not any("flash" in name for name in kernels()) and any("math" in name for name in kernels())


@pytest.mark.parametrize("name", KERNELS)
def test_only_what_is_named_is_turned_off(name: str) -> None:
    before = on()
    turn_kernels_off([name])
    assert on() == before - {name}


def test_nothing_changes_without_a_name() -> None:
    torch.backends.cuda.enable_cudnn_sdp(False)
    turn_kernels_off([])
    assert "cudnn" not in on(), "what the program itself has turned off stays off"


@pytest.mark.parametrize(("names", "words"), [(["cuda"], "'cuda' is no attention kernel"), (KERNELS, "names all of")])
def test_what_cannot_be_is_refused(names: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        turn_kernels_off(names)
    assert on() == set(KERNELS)
