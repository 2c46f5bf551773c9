"""Accuracy of answers about images: the official one of VQA with all its quirks, and GQA's exact match.

Two official programs exist. All published results up to 2021, the released code of BLIP-2 among them, come from that of
2016; that of 2021 treats prediction and answers alike. They differ where all people agree, in number words, articles
and capitals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from blip2_train.data.official.checks import check_identities
from blip2_train.errors import ConfigError

K = TypeVar("K", bound=Hashable)
Rules = Literal["2016", "2021"]
ExactRules = Literal["released", "plain"]
"""How GQA's answers are compared: normalised as in the released code of BLIP-2, or as they are."""

ENOUGH = 3
"""An answer is wholly right when so many of the other people gave it."""
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32
"""The official programs give a flag in the place of the number of replacements, and the flag's value is 32."""
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()


def _with_apostrophe() -> dict[str, str]:
    """The official table of contractions: each one, written with one apostrophe too few.

    Its entries with a capital are left out: a text is in lower case when it gets here. One entry is the wrong way
    round, and stays so.
    """
    table = {"somebody'd": "somebodyd"}
    for word in _CONTRACTED:
        table |= {word[:i] + word[i + 1 :]: word for i, letter in enumerate(word) if letter == "'"}
    return table


_WITH_APOSTROPHE = _with_apostrophe()


AnswerRule = Literal["vqa", "exact", "plain"]
"""How answers are compared with references, see `answer_accuracy`."""


@dataclass(frozen=True, kw_only=True)
class AnswerScores(Generic[K]):
    """Accuracies in percent, not rounded."""

    overall: float
    """Over all questions."""
    per_answer_type: dict[str, float]
    """Over the questions of each type, in the order of their first questions."""
    per_question_type: dict[str, float]
    """Likewise."""
    per_question: dict[K, float]
    """Each question's."""

    def rounded(self) -> dict[str, float | dict[str, float]]:
        """With two decimals, as the official program prints them."""
        by_type = {"per_answer_type": self.per_answer_type, "per_question_type": self.per_question_type}
        rounded = {name: {kind: round(value, 2) for kind, value in part.items()} for name, part in by_type.items()}
        return {"overall": round(self.overall, 2), **rounded}


def answer_accuracy(
    predictions: Mapping[K, str],
    answers: Mapping[K, Sequence[str]],
    rule: AnswerRule | None = None,
    *,
    answer_types: Mapping[K, str] | None = None,
    question_types: Mapping[K, str] | None = None,
) -> AnswerScores[K]:
    """Accuracy of answers by a rule.

    Args:
        predictions: By question.
        answers: By the same questions.
        rule: `vqa` = `vqa_accuracy`; `exact` and `plain` = `exact_match_accuracy` of normalised texts and of texts as
            they are; None = `exact` if every question has one answer (GQA, Visual Genome), `vqa` if every question has
            several (VQAv2 and OK-VQA: ten).
        answer_types: See `vqa_accuracy`.
        question_types: See `vqa_accuracy`.

    Raises:
        ConfigError: without a rule, if some questions have one answer and others several; or as `vqa_accuracy`.

    Example:
        >>> answer_accuracy({7: "two dogs"}, {7: ["2 dogs"]}).overall
        100.0
    """
    if rule is None:
        alone = [key for key, given in answers.items() if len(given) == 1]
        if 0 < len(alone) < len(answers):
            other = next(key for key, given in answers.items() if len(given) != 1)
            raise ConfigError(
                f"{len(alone)} of {len(answers)} questions have one answer (first: {alone[0]}), the others several "
                f"(first: {other}), which are scored by different rules; validate on questions of one kind"
            )
        rule = "exact" if alone else "vqa"
    if rule == "vqa":
        return vqa_accuracy(predictions, answers, answer_types=answer_types, question_types=question_types)
    rules: ExactRules = "plain" if rule == "plain" else "released"
    return exact_match_accuracy(
        predictions, answers, answer_types=answer_types, question_types=question_types, rules=rules
    )


def vqa_accuracy(
    predictions: Mapping[K, str],
    answers: Mapping[K, Sequence[str]],
    *,
    answer_types: Mapping[K, str] | None = None,
    question_types: Mapping[K, str] | None = None,
    rules: Rules = "2016",
) -> AnswerScores[K]:
    """Agreement of people with each prediction, as the official program of VQA (v1, v2, OK-VQA) counts it.

    Each of the people in turn is left out; the prediction's worth is then the number of others who gave it, divided
    by 3, at most 1; the accuracy is the mean. With ten people of whom 0, 1, 2, 3, 4 or more agree, it is 0, 30, 60, 90,
    100 percent.

    Args:
        predictions: By question.
        answers: By the same questions, those of two or more people (officially ten), as written.
        answer_types: By the same questions; questions of the type "" are in no type's accuracy.
        question_types: Likewise.
        rules: Which official program; see the module.

    Raises:
        ConfigError: for a question that only one side has, one with fewer than two answers, or no question at all.

    Source: Antol et al., "VQA: Visual Question Answering", arXiv:1505.00468; the rules of vqaEval.py in
        GT-Vision-Lab/VQA, 458a8b2 (2016) and a013f00 (2021), under Python 3.
    """
    if rules not in ("2016", "2021"):
        raise ConfigError(f"there are no VQA rules {rules!r}; choose 2016 (published results) or 2021")
    if lonely := [key for key, given in answers.items() if isinstance(given, str) or len(given) < 2]:
        raise ConfigError(
            f"question {lonely[0]!r} has answers {answers[lonely[0]]!r}; VQA accuracy compares people, so give the "
            "answers of two or more, or take exact_match_accuracy"
        )
    agreed = _agreement_2016 if rules == "2016" else _agreement_2021
    return _mean_scores(predictions, answers, agreed, answer_types, question_types)


def exact_match_accuracy(
    predictions: Mapping[K, str],
    answers: Mapping[K, Sequence[str]],
    *,
    answer_types: Mapping[K, str] | None = None,
    question_types: Mapping[K, str] | None = None,
    rules: ExactRules = "released",
) -> AnswerScores[K]:
    """Share of predictions that equal an answer, as GQA is scored.

    The two programs differ: that of BLIP-2's published numbers normalises both sides by VQA's rules, so that "The
    table." is "table"; GQA's own compares the texts as they are, capitals and blanks included. (It counts balanced
    questions only, of which the files of balanced questions consist.)

    Args:
        predictions: By question.
        answers: By the same questions, one or more each; any of them will do.
        answer_types: See `vqa_accuracy`.
        question_types: Likewise.
        rules: `released` or `plain`.

    Raises:
        ConfigError: for a question that only one side has, one without answers, or no question at all.

    Source: the evaluation of GQA in the released code of BLIP-2 (Salesforce LAVIS); `eval.py` of GQA (Hudson and
        Manning, 2019, arXiv:1902.09506).

    Example:
        >>> [exact_match_accuracy({1: "Yes."}, {1: ["yes"]}, rules=rules).overall for rules in ("released", "plain")]
        [100.0, 0.0]
    """
    if rules not in ("released", "plain"):
        raise ConfigError(f"there are no rules {rules!r} of exact match; choose released or plain")
    if bare := [key for key, given in answers.items() if isinstance(given, str) or not given]:
        raise ConfigError(f"question {bare[0]!r} has answers {answers[bare[0]]!r}; give a list of one or more")
    equal = _equal if rules == "released" else _identical
    return _mean_scores(predictions, answers, equal, answer_types, question_types)


def normalize_answer(text: str) -> str:
    """An answer after all of the official rules: punctuation, digits, articles, contractions.

    Example:
        >>> normalize_answer("The two dogs, dont ask."), normalize_answer("10,000"), normalize_answer("semi-truck")
        ("2 dogs don't ask", '10000', 'semi truck')
    """
    return _digits_and_articles(_punctuation(text))


def _punctuation(text: str) -> str:
    """Each mark vanishes if it stands next to a blank anywhere, or any digit,comma,digit occurs; else it is a blank."""
    joined = _DIGITS_WITH_COMMA.search(text) is not None
    fate = {ord(p): "" if joined or f"{p} " in text or f" {p}" in text else " " for p in _PUNCTUATION if p in text}
    # The official pattern looks behind as well, but mistypes it, so that only the look ahead has an effect.
    return _PERIOD.sub("", text.translate(fate), count=_MOST_PERIODS)


def _digits_and_articles(text: str) -> str:
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in words if word not in _ARTICLES)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _agreement_2016(prediction: str, answers: Sequence[str]) -> float:
    predicted = normalize_answer(_one_line(prediction))
    return _agreement(predicted, [_punctuation(answer) for answer in answers] if len(set(answers)) > 1 else answers)


def _agreement_2021(prediction: str, answers: Sequence[str]) -> float:
    predicted, given = _one_line(prediction), [_one_line(answer) for answer in answers]
    if len(set(given)) > 1:
        predicted, given = normalize_answer(predicted), [normalize_answer(answer) for answer in given]
    return _agreement(predicted, given)


def _agreement(predicted: str, given: Sequence[str]) -> float:
    same = [answer == predicted for answer in given]
    everyone = sum(same)
    # Summed in the order of the answers: the last bit can decide a rounding.
    return sum(min(1, float(everyone - own) / ENOUGH) for own in same) / len(same)


def _equal(prediction: str, answers: Sequence[str]) -> float:
    return float(normalize_answer(prediction) in {normalize_answer(answer) for answer in answers})


def _identical(prediction: str, answers: Sequence[str]) -> float:
    return float(prediction in answers)


def _mean_scores(
    predictions: Mapping[K, str],
    answers: Mapping[K, Sequence[str]],
    score: Callable[[str, Sequence[str]], float],
    answer_types: Mapping[K, str] | None,
    question_types: Mapping[K, str] | None,
) -> AnswerScores[K]:
    if not answers:
        raise ConfigError("there are no answers, so there is nothing to score")
    check_identities(predictions, answers, thing="question", prediction="prediction", reference="answers")
    for key in answers:
        if not isinstance(predictions[key], str):
            raise ConfigError(f"question {key!r} has prediction {predictions[key]!r}; give one string")
    scores = {key: score(predictions[key], given) for key, given in answers.items()}
    return AnswerScores(
        overall=_percent(list(scores.values())),
        per_answer_type=_by_type(scores, answer_types),
        per_question_type=_by_type(scores, question_types),
        per_question={key: 100 * value for key, value in scores.items()},
    )


def _by_type(scores: Mapping[K, float], types: Mapping[K, str] | None) -> dict[str, float]:
    if types is None:
        return {}
    groups: dict[str, list[float]] = {}
    for key, value in scores.items():
        if key not in types:
            raise ConfigError(f"question {key!r} has no type; give every question one, or an empty text")
        if types[key]:
            groups.setdefault(types[key], []).append(value)
    return {kind: _percent(values) for kind, values in groups.items()}


def _percent(values: Sequence[float]) -> float:
    return 100 * float(sum(values)) / len(values)
