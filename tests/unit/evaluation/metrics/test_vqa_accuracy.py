from __future__ import annotations

import random
from typing import Any

import pytest
from naive_vqa import CONTRACTIONS, MARKS, SMALL, accuracy, without_articles, without_marks

from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.vqa_accuracy import exact_match_accuracy, normalize_answer, vqa_accuracy

TEN = 10


def quirks() -> list[str]:
    """Texts that each touch a rule."""
    texts = ["", " ", "\t", "\n", ".", "..", "3.5", "3.", ".5", "a.m.", "u.s.", "no. 5", "v 2. 5", "e.g. 1.5", "1.a"]
    for mark in MARKS:
        texts += [f"in{mark}side", f"be {mark}fore", f"af{mark} ter", f"{mark}start", f"end{mark}", f"x{mark}y {mark}z"]
        texts += [f"1,000{mark}b", f"1{mark}2", mark, f" {mark}", f"a{mark}\nb", f"a\t{mark}b"]
        texts += [f"x{mark}y z{mark}\nw", f"x{mark}y\t{mark}w", f"x{mark}y{mark} ", f" {mark}x{mark}y"]
    texts += ["1,000", "1, 000", "1 ,000", "1,a", "a,b", "1,2,3", "٣,٤ a-b", "²,3 a-b", "1,000 a-b?c"]
    texts += ["." * n for n in (31, 32, 33, 40)] + ["a." * 40, "." * 40 + "5", "x" + " ." * 33]
    texts += [*SMALL, *(word.upper() for word in SMALL), "eleven", "twenty one", "one-two", "ten."]
    texts += ["a", "an", "the", "The Dog", "a the an", "theatre", "a dog, the cat", "ANOTHER", "dog a"]
    texts += [
        *CONTRACTIONS,
        *CONTRACTIONS.values(),
        "lets",
        "let's",
        "shes",
        "im",
        "ive",
        "id've",
        "i'dve",
        "DONT",
        "Dont.",
    ]
    texts += [
        "dont-know",
        "its",
        "it's",
        "cant, wont",
        "’twas",
        "don’t",
        "café",
        "CAFÉ",
        "straße",
        "İstanbul",
        "日本 , 語",
    ]
    texts += [
        "tab\tin side",
        "new\nline",
        "\n both \t",
        "\r\nwin",
        "a\u00a0b",
        "a\u2028b",
        "non\xa0-break",
        "😀!",
        "yes ",
        " yes",
    ]
    texts += ["Yes", "yes", "YES!", "no", "No", "2", "two", "2 dogs", "two dogs", "the 2 dogs"]
    return texts


def table() -> list[tuple[str, list[str]]]:
    """Predictions and what ten people said, drawn so that often some of them agree before or after normalisation."""
    draw, texts = random.Random(0), quirks()
    rows = [(text, [text] * TEN) for text in texts]
    rows += [(text, [normalize_answer(text)] * TEN) for text in texts]
    for text in texts * 2:
        alike = [
            text,
            text.lower(),
            text.upper(),
            normalize_answer(text),
            without_marks(text),
            f" {text} ",
            f"{text}\n",
        ]
        others = draw.sample(texts, 3)
        answers = [draw.choice(alike if draw.random() < 0.6 else others) for _ in range(TEN)]
        rows.append((draw.choice(alike), answers))
    for agreeing in range(TEN + 1):
        rows.append(("yes", ["yes"] * agreeing + ["no"] * (TEN - agreeing)))
    return rows


@pytest.mark.slow
def test_both_transcriptions_agree() -> None:
    rows = table()
    assert len(rows) > 1000
    answers = {number: given for number, (_, given) in enumerate(rows)}
    predictions = {number: prediction for number, (prediction, _) in enumerate(rows)}
    for rules in ("2016", "2021"):
        expected = {number: 100 * accuracy(prediction, given, rules) for number, (prediction, given) in enumerate(rows)}
        result = vqa_accuracy(predictions, answers, rules=rules)
        for number, row in enumerate(rows):
            assert result.per_question[number] == pytest.approx(expected[number], abs=1e-9), (rules, row)
        assert result.overall == pytest.approx(sum(expected.values()) / len(rows), abs=1e-9)
        assert {round(value) for value in result.per_question.values()} == {0, 30, 60, 90, 100}, "a table that tells"
    changed = [row for row in rows if abs(accuracy(*row, "2016") - accuracy(*row, "2021")) > 0.1]
    assert len(changed) > 50, "the two official programs differ on the table"


def test_normalisation_agrees() -> None:
    texts = quirks()
    for text in texts:
        assert normalize_answer(text) == without_articles(without_marks(text)), repr(text)
    assert sum(normalize_answer(text) != text for text in texts) > 200


@pytest.mark.parametrize(
    ("text", "normalised"),
    [  # worked out by hand from the rules
        ("semi-truck", "semi truck"),
        ("semi - truck", "semi truck"),
        ("a-b - c", "ab c"),  # one dash beside a blank: all of them vanish
        ("10,000 miles/hour", "10000 mileshour"),  # one comma between digits: every mark vanishes
        ("10, 000 miles/hour", "10 000 miles hour"),
        ("3.5 ft.", "3.5 ft"),
        ("p.m.5", "pm.5"),
        ("." * 40, "." * 8),
        ("None", "0"),
        ("The a an", ""),
        ("somebody'd", "somebodyd"),
        ("dont", "don't"),
        ("yall'd've", "y'all'd've"),
        ("Id've", "id've"),  # the official entry has a capital, and is never met
    ],
)
def test_normalisation_by_hand(text: str, normalised: str) -> None:
    assert normalize_answer(text) == normalised


@pytest.mark.parametrize(
    ("prediction", "answers", "in_2016", "in_2021"),
    [
        ("dog", ["dog"] * 10, 100, 100),
        ("two", ["two"] * 10, 0, 100),  # only the prediction becomes "2"
        ("Dog", ["Dog"] * 10, 0, 100),
        ("2", ["two"] * 9 + ["2"], 30, 100),  # people's number words stay in 2016
        ("u.s.", ["u.s."] * 10, 0, 100),  # all alike: their punctuation stays
        ("u.s.", ["u.s."] * 9 + ["usa"], 100, 100),
        ("yes", ["yes "] * 10, 0, 100),
        ("yes", ["yes"] * 3 + ["no"] * 7, 90, 90),
        ("yes", ["yes"] * 2 + ["no"] * 8, 60, 60),
        ("yes", ["yes"] + ["no"] * 9, 30, 30),
    ],
)
def test_accuracy_by_hand(prediction: str, answers: list[str], in_2016: float, in_2021: float) -> None:
    for rules, expected in (("2016", in_2016), ("2021", in_2021)):
        assert vqa_accuracy({1: prediction}, {1: answers}, rules=rules).overall == pytest.approx(expected)


def test_types_and_rounding() -> None:
    answers = {n: ["yes"] * (n % 4) + ["no"] * (TEN - n % 4) for n in range(1, 8)}  # 30 60 90 0 30 60 90
    kinds = {n: "yes/no" if n < 4 else "other" if n < 7 else "" for n in answers}
    result = vqa_accuracy(
        dict.fromkeys(answers, "yes"), answers, answer_types=kinds, question_types=dict.fromkeys(answers, "is the")
    )
    assert result.overall == pytest.approx(360 / 7)
    assert result.per_answer_type == {"yes/no": pytest.approx(60), "other": pytest.approx(30)}
    assert result.rounded() == {
        "overall": 51.43,
        "per_answer_type": {"yes/no": 60.0, "other": 30.0},
        "per_question_type": {"is the": 51.43},
    }


def test_exact_match_normalises_both_sides() -> None:
    predictions = {"07": "The Table.", "08": "two", "09": "cat"}
    result = exact_match_accuracy(
        predictions, {"07": ["table"], "08": ["2"], "09": ["dog"]}, answer_types={"07": "obj", "08": "", "09": "obj"}
    )
    assert result.per_question == {"07": 100.0, "08": 100.0, "09": 0.0}
    assert result.overall == pytest.approx(200 / 3) and result.per_answer_type == {"obj": 50.0}


def test_the_plain_comparison_of_gqas_program() -> None:
    """`predicted == gold`, nothing else."""
    predictions = {1: "Yes", 2: "yes", 3: "the table", 4: "two", 5: "yes "}
    answers = {1: ["yes"], 2: ["yes"], 3: ["table"], 4: ["2", "two"], 5: ["yes"]}
    result = exact_match_accuracy(predictions, answers, answer_types=dict.fromkeys(answers, "obj"), rules="plain")
    assert result.per_question == {1: 0.0, 2: 100.0, 3: 0.0, 4: 100.0, 5: 0.0}
    assert result.overall == pytest.approx(40) and result.per_answer_type == {"obj": pytest.approx(40)}
    assert exact_match_accuracy(predictions, answers).overall == 100.0
    with pytest.raises(ConfigError, match="no rules 'official' of exact match; choose released or plain"):
        exact_match_accuracy(predictions, answers, rules="official")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("predictions", "answers", "message"),
    [
        ({1: "a"}, {1: ["a", "b"], 2: ["c", "d"]}, r"1 questions have answers but no prediction \(first: 2\)"),
        ({1: "a", 9: "b"}, {1: ["a", "b"]}, r"1 questions have a prediction but no answers \(first: 9\)"),
        ({5: "a", 6: "b"}, {1: ["a", "b"]}, "no id in common, so they are of different sets or splits"),
        ({"1": "a"}, {1: ["a", "b"]}, "numbers on one side, text on the other"),
        ({1: "a"}, {1: ["a"]}, "answers of two or more, or take exact_match_accuracy"),
        ({1: "a"}, {1: "ab"}, "answers of two or more"),
        ({1: ["a"]}, {1: ["a", "b"]}, r"prediction \['a'\]; give one string"),
        ({}, {}, "nothing to score"),
    ],
)
def test_wrong_input_is_named(predictions: Any, answers: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        vqa_accuracy(predictions, answers)
    assert "\n" not in str(error.value)


def test_what_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="no VQA rules '2015'"):
        vqa_accuracy({1: "a"}, {1: ["a", "b"]}, rules="2015")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="question 1 has no type"):
        vqa_accuracy({1: "a"}, {1: ["a", "b"]}, answer_types={})
    with pytest.raises(ConfigError, match=r"question 1 has answers \[\]"):
        exact_match_accuracy({1: "a"}, {1: []})
