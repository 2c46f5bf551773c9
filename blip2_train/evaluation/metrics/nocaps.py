"""Scores of captions on NoCaps, by how far the images are from those of COCO."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from blip2_train.data.annotations.caption_layouts import DOMAINS
from blip2_train.data.official.checks import check_identities
from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.coco_caption import CaptionScores, score_captions

K = TypeVar("K", bound=Hashable)

ENTIRE = "entire"


def score_domains(
    predictions: Mapping[K, str],
    references: Mapping[K, Sequence[str]],
    domains: Mapping[K, str],
    metrics: Sequence[str] = ("cider",),
    *,
    time_limit: float = 600.0,
) -> dict[str, CaptionScores[K]]:
    """Scores within each domain, then over all images.

    Each domain is scored as a corpus of its own, with everything that follows from a corpus: CIDEr weighs words by how
    rare they are among that domain's references only, BLEU adds up its n-grams only. So the scores of the whole are not
    the mean of those of the parts. The submission server did it so (and is gone), as do the public local evaluations.

    Args:
        predictions: By image.
        references: By the same images.
        domains: By the same images, each `in-domain`, `near-domain` or `out-domain`.
        metrics: See `score_captions`; likewise the rest.

    Returns:
        By domain, those without images left out; the last is `entire`.

    Raises:
        ConfigError: for an image without a domain or with an unknown one, and as `score_captions`.

    Source: Agrawal et al., "nocaps: novel object captioning at scale", arXiv:1812.08658, section 5.
    """
    check_identities(domains, references, prediction="domain")
    if odd := [key for key in references if domains[key] not in DOMAINS]:
        raise ConfigError(
            f"image {odd[0]!r} has domain {domains[odd[0]]!r}; the domains of NoCaps are {', '.join(DOMAINS)}"
        )
    check_identities(predictions, references)
    scores = {}
    for domain in (*DOMAINS, ENTIRE):
        keys = [key for key in references if domain in (domains[key], ENTIRE)]
        if keys:
            own = {key: predictions[key] for key in keys}, {key: references[key] for key in keys}
            scores[domain] = score_captions(*own, metrics, time_limit=time_limit)
    return scores
