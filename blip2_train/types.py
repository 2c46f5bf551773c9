"""The records and protocols that the layers exchange.

Shape letters: B batch per process, T text tokens, Q queries, P patches with prefix tokens, Dv tower width, D hidden
size, E feature size, V vocabulary, H attention heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

if TYPE_CHECKING:  # commands that read, check or list data need no torch
    import torch
    from torch import Tensor


@dataclass(slots=True, kw_only=True, frozen=True)
class RejectedSample:
    """A sample that could not be used, and was replaced by another of the same source."""

    source: str
    """Shard or file the sample lies in."""
    key: str
    """Key of the sample inside its shard (`"000000012"`), or an empty string for the shard itself."""
    reason: str
    """One of the short reasons that counters are kept by, for instance `"unreadable image"`."""
    detail: str
    """The reader's message, for the log."""

    def __post_init__(self) -> None:
        """Read a reason of earlier versions, which used another word for an image."""
        if "picture" in self.reason:
            object.__setattr__(self, "reason", self.reason.replace("picture", "image"))


@dataclass(slots=True, kw_only=True)
class ImageTextSample:
    """One image and one caption after the transform, before tokenisation."""

    pixel_values: Tensor
    """`(3, H, W)`, float, normalised."""
    caption: str
    """Cleaned caption."""
    image_id: int
    """Identity of the image: equal for samples that show the same image. Fits int64."""
    sample_id: str
    """Where the sample came from: `<shard stem>/<key>#<caption number>`."""
    references: tuple[str, ...] = ()
    """Every caption of the image, as found in the data."""
    uniform: float = 0.0
    """A random number in [0, 1) of this sample, for whatever a collator decides at random."""
    rejected: tuple[RejectedSample, ...] = ()
    """Samples that had to be passed over before this one could be read."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """What every batch of one process holds."""

    pixel_values: Tensor
    """`(B, 3, H, W)`: levels, uint8, until they are normalised on the device, then float; in a run from stored
    features those of the vision tower, `(B, 1, P, Dv)`."""
    image_ids: Tensor
    """`(B,)`, int64: equal for samples that show the same image."""
    sample_ids: tuple[str, ...]
    """Where each sample came from."""
    rejected: tuple[RejectedSample, ...]
    """Samples that were passed over while this batch was read."""

    def __len__(self) -> int:
        return self.pixel_values.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        """A copy with every tensor on `device`."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """A copy with every tensor in page-locked memory (called by torch's loader)."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        from torch import Tensor

        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {k: change(value) for k, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


@dataclass(slots=True, kw_only=True)
class ImageTextBatch(Batch):
    """A stage-1 batch of one process."""

    input_ids: Tensor
    """`(B, T)`, int64: `[CLS]` … `[SEP]`, then padding. T is fixed by the collator."""
    attention_mask: Tensor
    """`(B, T)`, bool, True = real token."""
    longest_text: int
    """Number of real tokens of the longest text in this batch, at most T. A plain number, so that trimming needs no
    device synchronisation."""
    following: tuple[ImageTextBatch, ...] = ()
    """The other micro-batches of the same step, on the CPU; only the first holds them, and only if the whole step is
    contrasted."""


@dataclass(slots=True, kw_only=True)
class GenerationBatch(Batch):
    """A stage-2 batch of one process."""

    input_ids: Tensor
    """`(B, S)`, int64: what the language model reads after the queries, padded on the right. Decoder-only: start token,
    prompt, text, end token. Encoder-decoder: what its encoder reads."""
    attention_mask: Tensor
    """`(B, S)`, bool, True = real token."""
    labels: Tensor
    """`(B, T)`, int64, -100 where nothing is to be learnt (prompt, padding). Decoder-only: the tokens of `input_ids`,
    so T = S. Encoder-decoder: the targets of its decoder."""
    target_positions: Tensor
    """`(K,)`, int64: where `labels`, flattened, is not -100; made on the CPU, so that no one waits for the device."""
    references: tuple[tuple[str, ...], ...]
    """Every caption of each image, as found in the data."""


@dataclass(slots=True, kw_only=True)
class ImageKeyValues:
    """Keys and values that the queries read images from, one pair per cross-attention layer.

    Those of M images serve `copies * M` consecutive rows of queries, copy by copy: rows `0 … M-1` are the first
    pair of each image, rows `M … 2M-1` the second. So an image that takes part in several pairs is stored once.
    """

    keys: tuple[Tensor, ...]
    """Each `(M, H, P, D/H)`."""
    values: tuple[Tensor, ...]
    """Each `(M, H, P, D/H)`."""
    copies: int = 1
    """Rows of queries per image."""

    def __len__(self) -> int:
        return self.keys[0].shape[0]

    def select(self, rows: Tensor) -> ImageKeyValues:
        """Keys and values of the images at `rows` `(R,)`, int64, each serving one row of queries."""
        return ImageKeyValues(
            keys=tuple(k.index_select(0, rows) for k in self.keys),
            values=tuple(v.index_select(0, rows) for v in self.values),
        )

    def repeat(self, copies: int) -> ImageKeyValues:
        """The same images, each serving `copies` rows of queries; no tensor is copied."""
        return ImageKeyValues(keys=self.keys, values=self.values, copies=copies)


@dataclass(slots=True, kw_only=True)
class EncodedImages:
    """What one pass of the images through tower and Q-Former leaves for the three objectives."""

    patch_features: Tensor
    """`(B, P, Dv)`: the tower's output before `ln_vision`; this is what travels to other processes."""
    image_kv: ImageKeyValues
    """Keys and values of these images for cross-attention, projected once."""
    query_states: Tensor
    """`(B, Q, D)`: output of the image pass."""
    query_cache: tuple[tuple[Tensor, Tensor], ...]
    """Self-attention keys and values of the queries in each layer, each `(B, H, Q, D/H)`; ITG reads them."""
    image_features: Tensor
    """`(B, Q, E)`, float32, unit length along E."""


class ImageTextEncoder(Protocol):
    """What the stage-1 objective needs of a model."""

    @property
    def temperature(self) -> Tensor:
        """Learned scalar that similarities are divided by."""
        ...

    def encode_image(self, pixel_values: Tensor) -> EncodedImages:
        """Run the tower and the image pass once."""
        ...

    def encode_patches(self, patch_features: Tensor) -> EncodedImages:
        """Run the image pass on features that the tower gave before."""
        ...

    def project_image(self, patch_features: Tensor) -> ImageKeyValues:
        """Cross-attention keys and values of images given by the tower's features `(M, P, Dv)`."""
        ...

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Text features `(B, E)`, float32, unit length."""
        ...

    def match(self, image_kvs: Sequence[ImageKeyValues], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Matching logits `(R, 2)` of R rows of (image, text); column 1 = match."""
        ...

    def caption_logits(self, images: EncodedImages, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vocabulary logits `(N, V)` of what follows each of the N real tokens, text by text.

        The texts `(B, T)` start with `[DEC]`; each reads its image.
        """
        ...

    @property
    def decoder_start_token_id(self) -> int:
        """Id of `[DEC]`."""
        ...


class ObjectiveOutput(NamedTuple):
    """A training loss and what it is made of."""

    total: Tensor
    """Scalar to differentiate."""
    terms: dict[str, Tensor]
    """Each loss by its short name (`itc`, `itm`, `itg`), detached scalars, mean over all processes' samples once
    averaged over processes."""
    stats: dict[str, Tensor]
    """Detached scalars that describe the batch (accuracy, temperature, number of rows without a negative, …)."""


class Objective(Protocol):
    """What training needs of an objective; one that is an `nn.Module` may have parameters of its own, which train."""

    @property
    def batch_type(self) -> type[Batch]:
        """The kind of batch that it reads."""
        ...

    @property
    def contrasts_within_batch(self) -> bool:
        """Whether samples of a micro-batch are each other's negatives, so that accumulation adds none."""
        ...

    def __call__(self, model: Any, batch: Any, generator: torch.Generator) -> ObjectiveOutput:
        """The loss of this process's B samples; `generator` is in the same state on every process."""
        ...

    def chance_levels(self, contrasted: int, vocab_size: int) -> dict[str, float]:
        """Loss of a model that has learned nothing, in nats, by the name of the term.

        Args:
            contrasted: Samples that are contrasted: those of one micro-batch over all processes, or of a step.
            vocab_size: Tokens that the model predicts.
        """
        ...


class GenerativeEncoder(Protocol):
    """What the stage-2 objective needs of a model."""

    def predicting_states(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> Tensor:
        """Last states `(B, T, D)` of the language model; the state at t predicts `labels[:, t]`."""
        ...

    def output_layer(self) -> tuple[Tensor, Tensor | None]:
        """Weight `(V, D)` and bias `(V,)` that turn those states into vocabulary logits."""
        ...


@runtime_checkable
class TextTokenizer(Protocol):
    """What the collators ask of a tokenizer."""

    pad_token_id: int

    def __call__(self, text: list[str], **options: Any) -> Any:
        """Tokenise a list of texts."""
        ...

    def __len__(self) -> int: ...


class Collator(Protocol):
    """What the data module needs of a collator."""

    tokenizer: Any
    """Its tokenizer, with transformers' `save_pretrained`."""

    max_text_length: int
    """Tokens of a text at most."""

    @property
    def batch_type(self) -> type[Batch]:
        """The kind of batch that it makes."""
        ...

    def __call__(self, samples: Sequence[ImageTextSample]) -> Batch:
        """Make a batch of B samples."""
        ...

    def fingerprint(self) -> dict[str, str | int | float]:
        """What has to stay the same for a run to continue."""
        ...


@dataclass(slots=True, kw_only=True)
class QuestionSample(ImageTextSample):
    """One image and one question about it; the caption is one of its answers."""

    question: str
    """Cleaned question."""
    question_id: int | str
    """As in the data; unique in its source."""
    question_type: str
    """Kind of question; empty if the data has none."""


class TextTokens(NamedTuple):
    """Texts as the Q-Former reads them."""

    input_ids: Tensor
    """`(B, T)`, int64: `[CLS]` … `[SEP]`, then padding."""
    attention_mask: Tensor
    """`(B, T)`, bool, True = real token."""


@dataclass(slots=True, kw_only=True)
class AnswerBatch(GenerationBatch):
    """A batch of questions about images, whose labels are the answers."""

    qformer_input_ids: Tensor
    """`(B, T)`, int64: the questions as the Q-Former reads them, `[CLS]` … `[SEP]`, then padding."""
    qformer_attention_mask: Tensor
    """`(B, T)`, bool, True = real token."""
    questions: tuple[str, ...]
    """Cleaned."""
    question_ids: tuple[int | str, ...]
    question_types: tuple[str, ...]

    @property
    def question_tokens(self) -> TextTokens:
        """The questions as the Q-Former reads them."""
        return TextTokens(self.qformer_input_ids, self.qformer_attention_mask)


class AnsweringEncoder(GenerativeEncoder, Protocol):
    """The methods of a model that the objective of visual question answering uses."""

    def predicting_states(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        question: TextTokens | None = None,
    ) -> Tensor:
        """Last states `(B, T, D)` of the language model; its queries may read each image with its question."""
        ...
