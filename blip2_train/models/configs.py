"""Sizes and choices of the models, checked when they are made."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from blip2_train.errors import ConfigError

if TYPE_CHECKING:  # printing a configuration needs no torch
    from torch import Tensor, nn

ACTIVATIONS = (
    "gelu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "gelu_python",
    "quick_gelu",
    "relu",
    "silu",
    "swish",
    "mish",
    "tanh",
)
"""Functions of a Q-Former's feed-forward blocks, by the names that transformers gives them; none has parameters."""
DTYPE_NAMES = ("float32", "float16", "bfloat16")
"""As torch names them; `models.dtypes.DTYPES` has the types."""
FrozenParts = Literal["none", "queries", "all"]
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes that the file systems in use take."""


class VisionNetwork(Protocol):
    """What a vision tower needs of the network of its family, which is an `nn.Module`."""

    num_features: int
    """Width Dv."""
    num_prefix_tokens: int
    """Tokens in front of the patches (class token, registers)."""

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        ...

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The blocks that are sharded one by one when the tower trains, first to last; none = it is sharded whole."""
        ...

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` to features `(B, P, Dv)`: prefix tokens, then patches row by row."""
        ...


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A vision tower: any timm vision transformer, cut before its last block.

    A subclass that overrides `own_network` is another family of towers (docs/add-a-vision-tower.md).
    """

    name: str
    """timm model name; with `weights: timm` give the full `name.tag`."""
    weights: str
    """`timm` (download by tag), `random`, or the path of a `.safetensors`, `.pt` or `.pth` file."""
    image_size: int
    """Pixels per side of the square input."""
    dropped_blocks: int = 1
    """Blocks removed at the end: BLIP-2 reads the second-last block's output (section 3.4 of the paper)."""
    frozen: bool = True
    """Frozen towers take no gradient, stay in eval mode and may have 16-bit weights."""
    dtype: str = "float32"
    """`float32`, `float16` or `bfloat16`; only float32 when trained."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass (for trained towers)."""
    overrides: dict[str, Any] | None = None
    """Arguments for timm that change the architecture (`embed_dim`, `depth`, `num_heads`, `patch_size`, …)."""
    mean: tuple[float, ...] | None = None
    """What is subtracted from each channel of pixel values in 0 … 1; None = the tower's own
    (`vision_tower.normalisation`)."""
    std: tuple[float, ...] | None = None
    """What each channel is divided by after that; None = the tower's own."""

    def own_network(self) -> Any:
        """The network of another family (a `VisionNetwork`) with random weights; None = timm's model `name`."""
        return None

    @property
    def family(self) -> str | None:
        """Qualified name of the class, as exports record it; None = the family of timm's vision transformers."""
        kind = type(self)
        return None if kind is VisionConfig else f"{kind.__module__}.{kind.__qualname__}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "overrides", dict(self.overrides or {}))  # so that it is never None
        _check_name("vision weights", self.weights)
        for name in ("mean", "std"):
            if (numbers := getattr(self, name)) is None:
                continue
            if len(numbers) != 3 or (name == "std" and min(numbers) <= 0):
                raise ConfigError(f"vision {name} needs three numbers, std positive; got {list(numbers)}")
            object.__setattr__(self, name, tuple(map(float, numbers)))
        if self.dtype not in DTYPE_NAMES:
            raise ConfigError(f"vision dtype {self.dtype!r} is unknown; use one of {', '.join(DTYPE_NAMES)}")
        if not self.frozen and self.dtype != "float32":
            raise ConfigError(
                f"a trained vision tower needs float32 weights, but dtype is {self.dtype!r}: with 16-bit masters "
                "it becomes NaN. Set dtype: float32 (the trainer's precision still computes in 16 bits), or freeze it"
            )
        if self.image_size <= 0:
            raise ConfigError(f"image_size must be positive, got {self.image_size}")
        if self.dropped_blocks < 0:
            raise ConfigError(f"dropped_blocks must be 0 or more, got {self.dropped_blocks}")


def _check_name(what: str, name: str) -> None:
    """Refuse a name that no file system takes: it would fail wherever somebody first looks for a file of that name."""
    try:
        path = os.fsencode(name)
    except UnicodeEncodeError:
        path = b"\0"
    if b"\0" in path or len(path) > _LONGEST_PATH or max(map(len, path.split(b"/"))) > _LONGEST_NAME:
        start = name[:40] + "…" * (len(name) > 40)
        raise ConfigError(f"{what} {start!r} cannot be the name of a file or of a model; give a path or a hub id")


def find_family(name: str | None) -> type[VisionConfig] | None:
    """The class of a family of towers by its qualified name; None = no imported class has that name.

    Only classes that the process has imported are looked at, so that a name in a file imports nothing. Of several with
    one name (a notebook cell that ran twice) the newest counts.
    """
    if name is None:
        return VisionConfig
    kinds, newest = VisionConfig.__subclasses__(), None
    for kind in kinds:  # grows while it is read
        kinds += kind.__subclasses__()
        if f"{kind.__module__}.{kind.__qualname__}" == name:
            newest = kind
    return newest


@dataclass(frozen=True, kw_only=True)
class QFormerConfig:
    """A Querying Transformer; the defaults are BLIP-2's (BERT-base with 32 queries)."""

    weights: str
    """What to start from: `random`, a folder with BERT weights (`config.json`, `model.safetensors`), or a hub id."""
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    num_queries: int = 32
    cross_attention_every: int = 2
    """Layers 0, n, 2n, … read the image."""
    vocab_size: int = 30523
    """BERT's 30,522 word pieces and `[DEC]`."""
    max_positions: int = 512
    """Learned text positions, tokens."""
    dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    """Function of the feed-forward blocks and of the prediction head; `gelu` is the exact one."""
    fold_token_type: bool = False
    """Add BERT's embedding of segment 0 to its positions, so that a text pass computes what BERT computes; the original
    drops it."""
    initializer_range: float = 0.02
    """Standard deviation of fresh weights. What a layer passes on grows with its square root of width, so a narrow
    Q-Former needs more."""
    feature_size: int = 256
    """Size E of the shared space of the contrastive loss."""
    pack_text: bool = True
    """Lay the real tokens of texts in one row, so that no layer computes padding; False computes it: equal losses where
    no dropout is sampled."""
    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass, with the same dropout: less memory, one more forward pass."""
    frozen: FrozenParts = "none"
    """`none`, `queries` (the learned queries stay what they start from), or `all` (layers, queries, embeddings and the
    layer norm of the images stay, without dropout: in stage 2 the projection to the language model alone trains)."""

    def __post_init__(self) -> None:
        _check_name("Q-Former weights", self.weights)
        if self.frozen not in get_args(FrozenParts):
            raise ConfigError(f"frozen {self.frozen!r} is unknown; use one of {', '.join(get_args(FrozenParts))}")
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act {self.hidden_act!r} is unknown; use one of {', '.join(ACTIVATIONS)}")
        if self.num_heads < 1 or self.hidden_size % self.num_heads:
            raise ConfigError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_queries",
            "cross_attention_every",
            "vocab_size",
            "max_positions",
            "feature_size",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """A frozen language model: any decoder-only or encoder-decoder model of transformers."""

    name: str
    """Folder or hub id that holds weights and, unless `architecture` is given, the configuration."""
    weights: str = "pretrained"
    """`pretrained` (those of `name`) or `random`."""
    architecture: dict[str, Any] | None = None
    """transformers' configuration as a mapping with `model_type`; None = that of `name`. With it the model can be
    built, counted and tested without any download."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Changes to that configuration, for instance `dense_act_fn: gelu`, which the released FlanT5 models need."""
    dtype: str = "float32"
    """`float32`, `float16` or `bfloat16`. T5 overflows in float16."""
    quantization: str = "none"
    """`none`, `int8` or `int4`: weights of linear layers in 8 or 4 bits (extra `quantization`)."""
    dropout: bool = False
    """Keep the frozen model's dropout active in training, as the released code does by oversight."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, one more forward pass."""
    start_token: str | None = None
    """What a text begins with; None = what the tokenizer puts in front by itself."""
    end_token: str | None = None
    """What a text ends with; None = the tokenizer's end token, and generation stops at every end that the model's files
    list. The released OPT models were trained with a line end."""
    pad_token: str | None = None
    """What rows are filled up with; None = the model's own, or else its end token: padding is never read."""

    def __post_init__(self) -> None:
        _check_name("language model", self.name)
        if self.dtype not in DTYPE_NAMES:
            raise ConfigError(f"language dtype {self.dtype!r} is unknown; use one of {', '.join(DTYPE_NAMES)}")
        if self.weights not in ("pretrained", "random"):
            raise ConfigError(f"language weights {self.weights!r} is unknown; use 'pretrained' or 'random'")
        if self.quantization not in ("none", "int8", "int4"):
            raise ConfigError(f"quantization {self.quantization!r} is unknown; use 'none', 'int8' or 'int4'")
        if self.architecture is not None and "model_type" not in self.architecture:
            raise ConfigError("language architecture lacks model_type ('opt', 't5', 'llama', …)")


ADAPTER_TARGETS = ("language_model", "qformer")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Low-rank adapters beside frozen linear layers: LoRA (Hu et al., 2022, arXiv:2106.09685)."""

    target: str = "language_model"
    """`language_model`, or `qformer`, whose own weights are frozen then."""
    r: int = 8
    """Rank of the change that an adapter can make to its layer."""
    alpha: float = 16.0
    """The change is multiplied by `alpha / r`."""
    dropout: float = 0.0
    """Of what an adapter reads."""
    target_modules: list[str] | None = None
    """Names, or ends of dotted names, of the linear layers that get an adapter; None = queries and values of attention
    (`q_proj`, `v_proj` in OPT, `q`, `v` in T5, `query`, `value` in the Q-Former)."""

    def __post_init__(self) -> None:
        if self.target not in ADAPTER_TARGETS:
            raise ConfigError(f"target {self.target!r} is unknown; use one of {', '.join(ADAPTER_TARGETS)}")
        if self.r < 1:
            raise ConfigError(f"r must be at least 1, got {self.r}")
        if self.alpha <= 0:
            raise ConfigError(f"alpha must be more than 0, got {self.alpha}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.target_modules is not None and not self.target_modules:
            raise ConfigError("target_modules names no layer; give some, or null for queries and values")


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How text is generated; only new tokens count."""

    num_beams: int = 5
    """Beams of the search; 1 = greedy or sampling."""
    max_new_tokens: int = 30
    min_new_tokens: int = 1
    length_penalty: float = 1.0
    """Exponent of the length that beam scores are divided by; below 0 short texts win."""
    repetition_penalty: float = 1.0
    do_sample: bool = False
    """Sample from the distribution (with `top_p`, `temperature`) instead of searching."""
    top_p: float = 0.9
    """Share of the mass that nucleus sampling keeps."""
    temperature: float = 1.0
    top_k: int = 0
    """How many of the likeliest tokens sampling chooses from, before `top_p`; 0 = all."""
    num_return_sequences: int = 1
    """Texts of each image: the best of the beams, or as many samples."""

    def __post_init__(self) -> None:
        for name in ("length_penalty", "repetition_penalty", "top_p", "temperature"):
            object.__setattr__(self, name, float(getattr(self, name) + 0.0))  # transformers refuses the 2 of a form
        for name in ("num_beams", "max_new_tokens", "num_return_sequences"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ConfigError(
                f"min_new_tokens must be in 0 … max_new_tokens ({self.max_new_tokens}), got {self.min_new_tokens}"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.temperature <= 0.0 or self.repetition_penalty <= 0.0:
            raise ConfigError("temperature and repetition_penalty must be more than 0")
        if self.top_k < 0:
            raise ConfigError(f"top_k must be 0 (all tokens) or more, got {self.top_k}")
        if self.num_return_sequences > (most := self.num_beams) and not (self.do_sample and most == 1):
            raise ConfigError(
                f"num_return_sequences {self.num_return_sequences} needs as many beams, or do_sample=True with one; "
                f"num_beams is {most}"
            )
