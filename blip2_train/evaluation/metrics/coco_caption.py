"""Scores of captions against references, equal to the last digit to the official COCO evaluation.

The official code is the package pycocoevalcap. Its tokeniser, METEOR and SPICE are Java programs, which are run here
without its wrappers: those shift captions to other images after a line separator, write into site-packages, and hang
for ever when METEOR fails.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from blip2_train.data.official.checks import check_identities
from blip2_train.data.text_cleaning import without_broken_marks
from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.java import JavaError, JavaProgram
from blip2_train.evaluation.metrics.metric_format import MetricFormat, percent

K = TypeVar("K", bound=Hashable)
_Tokens = dict[int, list[str]]
_Scores = list[tuple[float, Sequence[float]]]
_logger = logging.getLogger(__name__)
_BREAKS = re.compile("[\t\n\x0b\x0c\r\u2028\u2029]+")
"""Tabs, and all characters at which the tokeniser begins a new line."""
_SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_OPEN_PACKAGES = ("java.lang", "java.math", "java.net", "java.text", "java.util", "java.util.concurrent")


def official_folder() -> Path:
    """The folder of the package pycocoevalcap, which is imported where captions are scored and not before.

    Raises:
        JavaError: if it is missing.
    """
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise JavaError("the package pycocoevalcap is missing; `pip install pycocoevalcap` brings it")
    return Path(package.submodule_search_locations[0])


@dataclass(frozen=True, kw_only=True)
class CaptionScores(Generic[K]):
    """Scores by name of the metric, on the library's scale: 1.0 is what papers print as 100."""

    scores: dict[str, float | None]
    """Over all images; None where it could not be computed."""
    reasons: dict[str, str]
    """Why a score is None, and how to get it."""
    per_image: dict[str, dict[K, float]]
    """By metric, then image. SPICE has none."""


def score_captions(
    predictions: Mapping[K, str],
    references: Mapping[K, Sequence[str]],
    metrics: Sequence[str] = ("cider",),
    *,
    time_limit: float = 600.0,
) -> CaptionScores[K]:
    """BLEU, METEOR, ROUGE-L, CIDEr and SPICE of one caption per image.

    CIDEr weighs words by how rare they are among the references of exactly these images. So it can be compared only
    between runs on the same set, must not be averaged over parts of a set, and is 0 for a single image. Its highest
    value is 10, which papers would print as 1000.

    Args:
        predictions: By image. An empty caption is allowed, and scores low.
        references: By the same images, one or more captions each.
        metrics: Any of `CAPTION_METRICS`.
        time_limit: Seconds, for each of the Java programs (the tokeniser, METEOR, SPICE). METEOR needs 10 to 30 for its
            start; SPICE parses every caption, and may need more than the default for COCO's test split.

    Returns:
        The scores. A metric whose program is missing, fails or takes too long is None with a reason; without the
        tokeniser that is every metric. SPICE is the mean with three decimals that its program prints.

    Raises:
        ConfigError: for an image that only one side has, one without references, an unknown metric, or no image.

    Source: Chen et al., "Microsoft COCO Captions", arXiv:1504.00325; the code of pycocoevalcap 1.2.
    """
    _check(predictions, references, metrics)
    keys = list(references)
    try:
        written, own = _tokenize(
            [[text for key in keys for text in references[key]], [predictions[key] for key in keys]], time_limit
        )
    except JavaError as error:
        return _no_scores(metrics, str(error))
    if not any(written):
        return _no_scores(metrics, "no reference holds a word; check the annotation file")
    following = iter(written)
    reference_tokens = {index: list(islice(following, len(references[key]))) for index, key in enumerate(keys)}
    prediction_tokens = {index: [text] for index, text in enumerate(own)}
    if "cider" in metrics and len(keys) == 1:
        _logger.warning("CIDEr of a single image is 0 whatever the caption: no word is rarer than another")
    results: dict[str, tuple[float, Sequence[float]]] = {}
    reasons: dict[str, str] = {}
    for score, names in _SCORERS:
        if set(names) & set(metrics):
            try:
                results.update(zip(names, score(reference_tokens, prediction_tokens, time_limit), strict=True))
            except JavaError as error:
                reasons.update({name: str(error) for name in names if name in metrics})
    return CaptionScores(
        scores={name: float(results[name][0]) if name in results else None for name in metrics},
        reasons=reasons,
        per_image={
            name: dict(zip(keys, map(float, results[name][1]), strict=True))
            for name in metrics
            if name in results and len(results[name][1])
        },
    )


def tokenize_captions(captions: Mapping[K, Sequence[str]], time_limit: float = 600.0) -> dict[K, list[str]]:
    """Captions as the official evaluation compares them: lower case, no punctuation, tokens separated by blanks.

    Args:
        captions: By image, any number each.
        time_limit: Seconds.

    Returns:
        By the same images, as many each.

    Raises:
        JavaError: if the tokeniser cannot run. There is no other one: its scores would be others.
    """
    (tokens,) = _tokenize([[text for texts in captions.values() for text in texts]], time_limit)
    following = iter(tokens)
    return {key: list(islice(following, len(texts))) for key, texts in captions.items()}


def _tokenize(blocks: Sequence[Sequence[str]], time_limit: float) -> list[list[str]]:
    """Tokenise several lists of captions in one run.

    The tokeniser looks a little beyond the end of a line ("No." before a digit is a word, else it is "no" and a full
    stop), so an empty line keeps the lists apart, and blanks at the ends of captions stay, as in the official run.
    Halves of characters, which no program can be sent, are left out.
    """
    folder = official_folder()
    from pycocoevalcap.tokenizer import ptbtokenizer

    lines: list[str] = []
    for block in blocks:
        lines += ["", *(_BREAKS.sub(" ", without_broken_marks(text)) for text in block)]
    arguments = ["-cp", str(folder / "tokenizer" / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)]
    arguments += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    with JavaProgram("the PTB tokeniser", arguments, time_limit) as tokenizer:
        tokenized = tokenizer.finish("\n".join(lines)).split("\n")
    if len(tokenized) != len(lines):
        raise JavaError(f"the PTB tokeniser returned {len(tokenized)} lines for {len(lines)}; no caption can be paired")
    following = iter(
        [" ".join(w for w in line.rstrip().split(" ") if w not in ptbtokenizer.PUNCTUATIONS) for line in tokenized]
    )
    return [list(islice(following, 1, 1 + len(block))) for block in blocks]


def _no_scores(metrics: Sequence[str], reason: str) -> CaptionScores[K]:
    return CaptionScores(scores=dict.fromkeys(metrics), reasons=dict.fromkeys(metrics, reason), per_image={})


def _check(predictions: Mapping[K, str], references: Mapping[K, Sequence[str]], metrics: Sequence[str]) -> None:
    if unknown := [name for name in metrics if name not in CAPTION_METRICS]:
        raise ConfigError(f"there is no caption metric {unknown[0]!r}; choose among {', '.join(CAPTION_METRICS)}")
    if not references:
        raise ConfigError("there are no references, so there is nothing to score")
    check_identities(predictions, references)
    for key, texts in references.items():
        if isinstance(texts, str) or not texts:
            raise ConfigError(f"image {key!r} has references {texts!r}; give a list of one or more captions")
        if not isinstance(predictions[key], str):
            raise ConfigError(f"image {key!r} has caption {predictions[key]!r}; give one string")


def _bleu(references: _Tokens, predictions: _Tokens, time_limit: float) -> _Scores:
    from pycocoevalcap.bleu.bleu import Bleu

    return list(zip(*Bleu(4).compute_score(references, predictions, verbose=0), strict=True))


def _of_library(name: str) -> Callable[[_Tokens, _Tokens, float], _Scores]:
    def score(references: _Tokens, predictions: _Tokens, time_limit: float) -> _Scores:
        scorer: Any = getattr(import_module(f"pycocoevalcap.{name.lower()}.{name.lower()}"), name)()
        return [scorer.compute_score(references, predictions)]

    return score


def _meteor(references: _Tokens, predictions: _Tokens, time_limit: float) -> _Scores:
    program = str(official_folder() / "meteor" / "meteor-1.5.jar")
    arguments = ["-Xmx2G", "-jar", program, "-", "-", "-stdio", "-l", "en", "-norm"]
    with JavaProgram("METEOR", arguments, time_limit) as meteor:
        counts = []
        for key, texts in references.items():
            fields = [text.replace("|||", "") for text in (*texts, predictions[key][0])]
            # An empty caption leaves "||| " at the end. Without its blank, METEOR would score the last reference.
            counts += meteor.ask(" ||| ".join(["SCORE", *fields]))
        *scores, mean = meteor.ask(" ||| ".join(["EVAL", *counts]), replies=len(counts) + 1)
    try:
        return [(float(mean), [float(score) for score in scores])]
    except ValueError as error:
        raise JavaError(f"METEOR answered with something other than a number: {error}") from error


def _spice(references: _Tokens, predictions: _Tokens, time_limit: float) -> _Scores:
    """The mean F-score that the program prints.

    The program writes the scores of single images by way of a JavaScript engine, which Java lost in version 15, so
    they are not requested. The opened packages are those that its serialiser reaches into, which Java forbids since 16.
    """
    folder = official_folder() / "spice"
    if missing := [name for name in _SPICE_MODELS if not (folder / "lib" / name).exists()]:
        raise JavaError(
            f"SPICE lacks {' and '.join(missing)}: take them from stanford-corenlp-full-2015-12-09.zip (384 MB) at "
            f"nlp.stanford.edu/software, and put them into {folder / 'lib'}"
        )
    rows = [{"image_id": key, "test": predictions[key][0], "refs": texts} for key, texts in references.items()]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "captions.json"
        path.write_text(json.dumps(rows), "utf-8")
        arguments = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPEN_PACKAGES]
        arguments += ["-Xmx8G", "-jar", str(folder / "spice-1.0.jar"), str(path)]
        with JavaProgram("SPICE", arguments, time_limit) as spice:
            printed = re.search(r"f-score:\s+(\d\.\d+) \(SPICE metric\)", spice.finish())
    if printed is None:
        raise JavaError("SPICE printed no score")
    return [(float(printed[1]), [])]


_SCORERS: tuple[tuple[Callable[[_Tokens, _Tokens, float], _Scores], dict[str, MetricFormat]], ...] = (
    (_bleu, {f"bleu_{n}": percent(f"BLEU-{n}", factor=100) for n in (1, 2, 3, 4)}),
    (_meteor, {"meteor": percent("METEOR", factor=100)}),
    (_of_library("Rouge"), {"rouge_l": percent("ROUGE-L", factor=100)}),
    (_of_library("Cider"), {"cider": MetricFormat(label="CIDEr", digits=3, papers_factor=100.0)}),
    (_spice, {"spice": percent("SPICE", factor=100)}),
)
"""Every caption metric: the function that computes one or several, and how each is shown.

A new one is a function like those above, from tokens of references and predictions (by index of the image) and a time
limit in seconds to the score over all images and those of single images, and a line here. Tasks, tables, the page and
`scripts/score.py` read it from here; validation during training computes CIDEr only.
"""
FORMATS = {name: how for _, formats in _SCORERS for name, how in formats.items()}
CAPTION_METRICS = tuple(FORMATS)
"""Names of the caption metrics."""
