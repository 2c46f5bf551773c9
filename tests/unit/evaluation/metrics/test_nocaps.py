"""NoCaps by domain, against numbers worked out by hand from the definitions of BLEU and CIDEr."""

from __future__ import annotations

import json
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import pytest

from blip2_train.data.annotations.captions import read_references
from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.coco_caption import score_captions
from blip2_train.evaluation.metrics.nocaps import score_domains

# Every reference of a domain begins with the domain's own first word, and shares no other word with any reference.
IN = {0: "the cat sits quietly", 3: "the horse jumps high", 5: "the bus drives slowly", 8: "the girl eats cake"}
NEAR = {
    1: "some men repair boats",
    4: "some kids throw stones",
    6: "some cooks bake bread",
    10: "some cows cross roads",
}
OUT = {
    2: "one lobster waves goodbye",
    7: "one harp leans there",
    9: "one rifle hangs upside",
    11: "one accordion lies open",
}
WRONG = {8: "the zebra drinks milk", 10: "boats men", 9: "one harp leans there", 11: "nothing of these words"}


def file_of_twelve(folder: Path) -> Path:
    images = [
        {"id": key, "file_name": f"{key:016x}.jpg", "open_images_id": f"{key:016x}", "domain": domain}
        for domain, texts in (("in-domain", IN), ("near-domain", NEAR), ("out-domain", OUT))
        for key in texts
    ]
    captions = [{"id": 100 + key, "image_id": key, "caption": text + "."} for key, text in (IN | NEAR | OUT).items()]
    path = folder / "nocaps_val_4500_captions.json"
    path.write_text(json.dumps({"images": sorted(images, key=lambda one: one["id"]), "annotations": captions}))
    return path


@pytest.mark.slow
def test_twelve_images_by_hand(tmp_path: Path) -> None:
    images = read_references(file_of_twelve(tmp_path))
    assert len(images) == 12 and [image.domain for image in images[:3]] == [
        "in-domain",
        "near-domain",
        "out-domain",
    ]
    references = {image.identity: image.captions for image in images}
    domains = {image.identity: image.domain for image in images}
    predictions = IN | NEAR | OUT | WRONG
    result = score_domains(predictions, references, domains, ["bleu_1", "cider"])
    assert list(result) == ["in-domain", "near-domain", "out-domain", "entire"]

    # BLEU-1: words that are right of words that were said; a corpus shorter than its references is punished.
    bleu = {
        "in-domain": 13 / 16,  # three captions of four words, then "the" of four
        "near-domain": 12 / 14 * exp(1 - 16 / 14),  # "boats men" has two words, none of them of "some cows cross roads"
        "out-domain": 9 / 16,  # two captions of four words, "one" of the third, none of the last
        "entire": 34 / 46 * exp(1 - 48 / 46),
    }
    # CIDEr: a word's weight is the logarithm of the images over the images that have it among the references. Each
    # caption: 10 x mean over n-grams of 1, 2, 3, 4 words of the cosine of both, made less by a difference in length.
    # A caption that is right has 10. In its own domain the first word has weight log(4/4) = 0, in the whole log(12/4),
    # and every other word, also one that no reference has, log(4) or log(12).
    first, other = log(12 / 4), log(12)
    one_word_right = 10 / 4 * first**2 / (first**2 + 3 * other**2)
    assert 0.1 < one_word_right < 0.2
    cider = {
        "in-domain": 3 * 10 / 4,
        "near-domain": 3 * 10 / 4,
        "out-domain": 2 * 10 / 4,  # "one harp leans there" of another image: only "one" is right, of weight 0
        "entire": (3 * 10 + 3 * 10 + 2 * 10 + 2 * one_word_right) / 12,
    }
    for domain, scores in result.items():
        assert scores.reasons == {}
        assert scores.scores["bleu_1"] == pytest.approx(bleu[domain], abs=1e-8), domain
        assert scores.scores["cider"] == pytest.approx(cider[domain], abs=1e-8), domain
    assert set(result["out-domain"].per_image["cider"]) == set(OUT)
    assert cider["entire"] > sum(cider[domain] * 4 for domain in list(cider)[:3]) / 12, "the whole is no mean of parts"


@pytest.mark.slow
def test_cider_of_a_caption_of_another_length_by_hand(tmp_path: Path) -> None:
    """Two of four words, in another order: no pair of words is right, the length differs by two, sigma is six."""
    captions = NEAR | {10: "cross cows"}
    result = score_domains(captions, {key: [text] for key, text in NEAR.items()}, dict.fromkeys(NEAR, "near-domain"))
    cosine = 2 / (sqrt(2) * sqrt(3))  # all words but "some", whose weight is 0, have equal weights
    expected = 10 / 4 * cosine * exp(-(2**2) / (2 * 6**2))
    assert list(result) == ["near-domain", "entire"] and result["near-domain"] == result["entire"]
    assert result["entire"].per_image["cider"][10] == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_a_domain_is_what_its_images_alone_would_give(tmp_path: Path) -> None:
    references = {key: [text, text[::-1]] for key, text in (IN | NEAR | OUT).items()}
    domains = {key: "in-domain" if key in IN else "out-domain" for key in references}
    predictions = IN | NEAR | OUT | WRONG
    result = score_domains(predictions, references, domains, ["rouge_l", "bleu_4", "cider"])
    for domain in ("in-domain", "out-domain"):
        keys = [key for key in references if domains[key] == domain]
        alone = score_captions(
            {key: predictions[key] for key in keys},
            {key: references[key] for key in keys},
            ["rouge_l", "bleu_4", "cider"],
        )
        assert result[domain] == alone


BOTH = {0: "in-domain", 1: "in-domain"}


@pytest.mark.parametrize(
    ("predictions", "domains", "message"),
    [
        ({0: "a"}, BOTH, r"1 images have references but no caption \(first: 1\)"),
        ({0: "a", 1: "b", 7: "c"}, BOTH, r"1 images have a caption but no references \(first: 7\)"),
        ({5: "a", 6: "b"}, BOTH, "no id in common, so they are of different sets or splits"),
        ({0: ["a"], 1: ["b"]}, BOTH, "give one string"),
        ({0: "a", 1: "b"}, {0: "in-domain"}, r"1 images have references but no domain \(first: 1\)"),
        ({0: "a", 1: "b"}, BOTH | {1: "far"}, "image 1 has domain 'far'; the domains of NoCaps are in-domain"),
    ],
)
def test_ids_that_do_not_fit_are_named(predictions: Any, domains: dict[int, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        score_domains(predictions, {0: ["a dog"], 1: ["a cat"]}, domains)
    assert "\n" not in str(error.value)
