"""The vision tower: a timm vision transformer that ends before its last block, or a network of another family.

Shape letters: B batch, P patches with the prefix tokens (class token, registers; a tower may have none), Dv width.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blip2_train.errors import ConfigError
from blip2_train.models.configs import VisionConfig
from blip2_train.models.dtypes import DTYPES
from blip2_train.models.freezing import freeze
from blip2_train.models.timm_without_wandb import (
    Beit,
    Eva,
    PatchEmbed,
    VisionTransformer,
    VisionTransformerRelPos,
    get_pretrained_cfg,
    resolve_data_config,
    timm,
)
from blip2_train.system.error_reasons import reason_of
from blip2_train.system.records import JsonObject, read_record


class _WithoutValues(TorchFunctionMode):
    """Clamps no tensor of the meta device: two thirds of the time that it takes timm to initialise a tower there."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.clamp_ and args[0].is_meta:
            return args[0]
        return function(*args, **(kwargs or {}))


def normalisation(config: VisionConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixel values in 0 … 1, that a tower was trained with.

    The values of the configuration come first; then those that timm wrote beside a local weight file (`config.json`);
    then timm's pretrained configuration of the name, its tag included. No weights are built or fetched.

    Raises:
        ConfigError: if timm does not know the name or its tag, or a `config.json` of timm's cannot be read.

    Source: `timm.data.resolve_model_data_config`.
    """
    if config.mean is not None and config.std is not None:
        return config.mean, config.std
    if config.family is not None:
        raise ConfigError(f"a vision tower of {config.family} has no mean and std of its own: give both")
    known = beside_weights(config.weights) or _pretrained_config(config.name)
    data_config = resolve_data_config(pretrained_cfg=known)
    return config.mean or tuple(data_config["mean"]), config.std or tuple(data_config["std"])


def _pretrained_config(name: str) -> dict[str, Any]:
    architecture, _, tag = name.partition(".")
    _require_known(architecture)
    try:
        data_config = get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        raise ConfigError(
            f"timm's {architecture} has no weights with the tag {tag!r}; it has {', '.join(tags) or 'none'}"
        ) from error
    return {"architecture": architecture, **(data_config.to_dict() if data_config else {})}


def beside_weights(weights: str) -> dict[str, tuple[float, ...]] | None:
    """The `mean` and `std` that timm wrote beside a local weight file, one or both; None = it wrote none.

    Raises:
        ConfigError: if timm's file cannot be read.
    """
    if weights in ("timm", "random"):
        return None
    location = Path(weights).expanduser()
    path = (location if location.is_dir() else location.parent) / "config.json"
    if not path.is_file():
        return None
    fix = "mend it, or set model.vision.mean and model.vision.std"
    content = read_record(path, JsonObject, fix, ConfigError)
    if "architecture" not in content:
        return None  # not timm's
    try:
        about = content.get("pretrained_cfg", content)
        return {name: _three(about[name]) for name in ("mean", "std") if about.get(name) is not None} or None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}, which timm wrote beside the vision weights, cannot be read ({error}); mend it, or set "
            "model.vision.mean and model.vision.std"
        ) from error


def _three(numbers: Any) -> tuple[float, ...]:
    if len(numbers) != 3:
        raise ValueError(f"three numbers are needed, got {numbers}")
    return tuple(map(float, numbers))


def _require_known(architecture: str) -> None:
    if not timm.is_model(architecture):
        name = architecture.rpartition("/")[2]  # of a hub id, which timm's names are not
        close = [name] if timm.is_model(name) else difflib.get_close_matches(name, timm.list_models(), 3, 0.75)
        raise ConfigError(
            f"timm has no model {architecture!r}"
            + (f"; did you mean {', '.join(close)}?" if close else "; see timm.list_models()")
        )


def create_timm_tower(config: VisionConfig) -> Any:
    """The whole timm model of a configuration, with random weights.

    Raises:
        ConfigError: if timm does not know the name or an override, the model is no plain vision transformer, or the
            image size does not fit its patches.
    """
    architecture, overrides = config.name.split(".")[0], config.overrides or {}
    _require_known(architecture)
    try:
        with _WithoutValues():
            tower = timm.create_model(
                architecture, pretrained=False, num_classes=0, img_size=config.image_size, **overrides
            )
    except Exception as error:  # timm's families raise whatever comes
        _refuse_other_families(_built_anyhow(architecture), architecture)
        reason = reason_of(error, 200)
        raise ConfigError(f"timm cannot build {architecture!r} with {overrides}: {reason}") from error
    _refuse_other_families(tower, architecture)
    embedding: Any = tower.patch_embed
    patch, size = embedding.patch_size[0], config.image_size
    if size < patch or (size % patch and not embedding.strict_img_size):
        below = size // patch * patch
        raise ConfigError(
            f"{architecture!r} reads whole patches of {patch} pixels, which image_size {size} is no multiple of; use "
            f"{' or '.join(str(fits) for fits in (below, below + patch) if fits)}"
        )
    return tower


PLAIN = (VisionTransformer, VisionTransformerRelPos, Eva, Beit)
"""timm's plain vision transformers: each block reads all patches of one grid and the same prefix tokens."""


def _refuse_other_families(tower: Any, architecture: str) -> None:
    """Refuse a model of timm whose features are not those of one grid of patches, with the reason."""
    if tower is None or (isinstance(tower, PLAIN) and isinstance(tower.patch_embed, PatchEmbed)):
        return
    strides = sorted({int(layer["reduction"]) for layer in getattr(tower, "feature_info", None) or []})
    if isinstance(tower, PLAIN):
        reason = "it is a hybrid, whose patches are made by convolutions"
    elif len(strides) > 1:
        reason = f"its layers have grids of different sizes (one cell for {', '.join(map(str, strides))} pixels)"
    else:
        plain = ", ".join(kind.__name__ for kind in PLAIN)
        reason = f"timm's {type(tower).__name__} is none of its plain vision transformers ({plain})"
    raise ConfigError(
        f"{architecture!r} cannot be the vision tower: {reason}; choose a plain vision transformer of timm: vit_*, "
        "deit*, eva* or beit* (docs/towers.md)"
    )


def _built_anyhow(architecture: str) -> Any:
    """The model at its own image size, without memory; None if timm cannot build that either."""
    try:
        with torch.device("meta"), _WithoutValues():
            return timm.create_model(architecture, pretrained=False)
    except Exception:
        return None


def _timm_network(config: VisionConfig) -> Any:
    """The model of timm without its last blocks and its norm."""
    tower = create_timm_tower(config)
    if config.dropped_blocks >= len(tower.blocks):
        raise ConfigError(
            f"dropped_blocks is {config.dropped_blocks}, but {config.name} has {len(tower.blocks)} blocks"
        )
    tower.prune_intermediate_layers([-1 - config.dropped_blocks], prune_norm=True)
    return tower


class VisionTower(nn.Module):
    """All tokens of the second-last block, without final norm (Li et al., 2023, section 3.4).

    A frozen tower stays in eval mode whatever `train()` sets, and runs in its own precision, outside autocast.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        own = config.own_network()
        tower = _timm_network(config) if own is None else own
        if config.gradient_checkpointing:
            if not hasattr(tower, "set_grad_checkpointing"):
                raise ConfigError(f"a vision tower of {config.family} has no gradient_checkpointing; set it to false")
            tower.set_grad_checkpointing(True)
        self.tower = tower
        self.family = config.family
        """None = timm's vision transformers."""
        self.quantization = "none"
        """What `quantize_tower` has made of its linear layers."""
        self.frozen = config.frozen
        self._feature_dtype = DTYPES[config.dtype]
        self.reads_features = False
        """Whether it is given its own features, stored before, instead of images, as images of one channel."""
        self.width: int = tower.num_features
        self.num_blocks: int = len(self.blocks)
        self.num_prefix_tokens: int = tower.num_prefix_tokens
        self.grid_size: tuple[int, int] = tuple((tower.patch_embed if own is None else tower).grid_size)
        if config.frozen:
            freeze(self)
            self.to(DTYPES[config.dtype])
        self.train(not config.frozen)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, first to last; sharding splits a trained tower by them."""
        return list(self.tower.blocks)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the features of a frozen tower."""
        return next((parameter.dtype for parameter in self.tower.parameters()), self._feature_dtype)

    def read_features(self) -> None:
        """Take features that were stored before instead of images from now on, and give up the weights."""
        assert self.frozen
        self._feature_dtype, self.tower, self.reads_features = self.dtype, nn.Module(), True

    @contextmanager
    def reading_features(self) -> Iterator[None]:
        """Take features that were stored before instead of images inside the context; the weights stay."""
        before, self.reads_features = self.reads_features, True
        try:
            yield
        finally:
            self.reads_features = before

    def train(self, mode: bool = True) -> Self:
        """Set training mode; without effect on a frozen tower."""
        return super().train(mode and not self.frozen)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Patch features.

        Args:
            pixel_values: `(B, 3, H, W)`, float; stored features `(B, 1, P, Dv)` if it reads those.

        Returns:
            `(B, P, Dv)`, in the dtype of the tower when frozen.
        """
        if self.reads_features:
            return pixel_values[:, 0]
        if not self.frozen:
            return self.tower.forward_features(pixel_values)
        dtype = next(self.tower.parameters()).dtype
        in_own_precision = dtype in (torch.float16, torch.bfloat16)
        keep_autocast = torch.is_autocast_enabled(pixel_values.device.type) and not in_own_precision
        with torch.no_grad(), torch.autocast(pixel_values.device.type, enabled=keep_autocast):
            features: Tensor = self.tower.forward_features(pixel_values.to(dtype))
        return features
