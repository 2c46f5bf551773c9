"""A model's configuration refuses what no model can have, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blip2_train.errors import ConfigError
from blip2_train.models.configs import LanguageModelConfig, QFormerConfig, VisionConfig

NAMES: dict[str, Callable[[str], object]] = {
    "vision weights": lambda name: VisionConfig(name="vit_tiny_patch16_224", weights=name, image_size=96),
    "Q-Former weights": lambda name: QFormerConfig(weights=name),
    "language model": lambda name: LanguageModelConfig(name=name),
}


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("name", ["x" * 256, "/folder/" + "ü" * 128, "a/" * 2048, "a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_one_line(what: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{what} '.* cannot be the name of a file or of a model") as refused:
        NAMES[what](name)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("name", ["x" * 255, "owner/model", "a/" * 2047, "~/weights.pth"])
def test_any_other_name_is_looked_for(what: str, name: str) -> None:
    NAMES[what](name)


@pytest.mark.parametrize("size", [0, -16])
@pytest.mark.parametrize("name", ["hidden_size", "intermediate_size", "num_layers", "num_queries", "feature_size"])
def test_a_qformer_without_a_size_is_one_line(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be at least 1, got {size}$"):
        QFormerConfig(weights="random", num_heads=4, **{name: size})  # type: ignore[arg-type]
