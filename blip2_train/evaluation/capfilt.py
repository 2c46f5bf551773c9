"""CapFilt: synthetic captions beside an image's own, all ranked by how well they fit, the best kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from PIL import Image

from blip2_train.data.text_cleaning import clean_caption, text_fault
from blip2_train.errors import ConfigError
from blip2_train.evaluation.caption_sampling import Captioner
from blip2_train.evaluation.pair_scoring import PairScorer, Score
from blip2_train.models.configs import GenerationOptions

ORIGINAL, SYNTHETIC = "original", "synthetic"
_DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class CapFiltOptions:
    """How captions are sampled, and how many are kept.

    Source: BLIP-2, section 3.4, which does not state how it sampled; BLIP: nucleus sampling, 0.9, up to 20 tokens.
    """

    captions: int = 10
    """Synthetic captions of each image."""
    keep: int = 2
    """Captions that are kept of each."""
    score: Score = "itc"
    """By which score a stage-1 scorer ranks."""
    top_p: float = 0.9
    """Share of the mass that nucleus sampling keeps."""
    temperature: float = 1.0
    max_new_tokens: int = 20
    prompt: str | None = None
    """Beginning of the captions; None = the prompt of training."""
    seed: int = 42
    """Of sampling."""

    def __post_init__(self) -> None:
        for name in ("captions", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        _ = self.generation

    @property
    def generation(self) -> GenerationOptions:
        """How captions are sampled."""
        return GenerationOptions(
            num_beams=1,
            do_sample=True,
            top_p=self.top_p,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class KeptCaptions:
    """The captions of one image that fit it best, best first."""

    captions: list[str]
    scores: list[float]
    """Rounded; of the scorer's own scale."""
    origins: list[str]
    """`original` or `synthetic`."""


class CapFilt:
    """Generates and ranks captions.

    Args:
        captioner: Generates the captions.
        scorer: Ranks the captions.
        options: How many of each, and how.
    """

    def __init__(self, captioner: Captioner, scorer: PairScorer, options: CapFiltOptions) -> None:
        self._captioner, self._scorer, self._options = captioner, scorer, options

    def __call__(
        self, images: Sequence[Image.Image], originals: Sequence[Sequence[str]], seeds: Sequence[int]
    ) -> list[KeptCaptions]:
        """The best captions of each image; of equal ones the first, and the image's own come first.

        Args:
            images: One batch.
            originals: Captions that each has, none of them empty once cleaned.
            seeds: Of each image's synthetic captions.

        Raises:
            ConfigError: if a score is not finite.
        """
        options = self._options
        written = self._captioner(images, seeds, options.captions, options.generation)
        candidates = [
            list(_different([(text, ORIGINAL) for text in own] + [(text, SYNTHETIC) for text in new]).values())
            for own, new in zip(originals, written, strict=True)
        ]
        scores = self._scorer(images, [[text for text, _ in some] for some in candidates])
        if not all(isfinite(score) for some in scores for score in some):
            raise ConfigError("the scorer gave a score that is no number; give it another dtype=, or another scorer=")
        return [self._best(some, values) for some, values in zip(candidates, scores, strict=True)]

    def _best(self, candidates: Sequence[tuple[str, str]], scores: Sequence[float]) -> KeptCaptions:
        rounded = [round(score, _DIGITS) for score in scores]
        best = sorted(range(len(rounded)), key=lambda index: -rounded[index])[: self._options.keep]
        return KeptCaptions(
            captions=[candidates[index][0] for index in best],
            scores=[rounded[index] for index in best],
            origins=[candidates[index][1] for index in best],
        )


def _different(candidates: Sequence[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """The candidates by their cleaned text, the first of each; none that cannot be used."""
    by_text: dict[str, tuple[str, str]] = {}
    for text, origin in candidates:
        cleaned = clean_caption(text).strip()
        if text_fault(text, cleaned) is None:
            by_text.setdefault(cleaned, (text, origin))
    return by_text
