"""What is said about a scene is true of it."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from blip2_train.data.emoji_scenes.concepts import Concept, article, load_concepts
from blip2_train.data.emoji_scenes.grammar import SIDES, CaptionWriter, sides
from blip2_train.data.emoji_scenes.questions import ANNOTATORS, GROUND_SYNONYMS, Question, QuestionWriter
from blip2_train.data.emoji_scenes.render import GROUND_COLORS, render
from blip2_train.data.emoji_scenes.scenes import GROUNDS, Item, Scene, draw_concepts, draw_pattern, draw_scene, region

COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "a pair of": 2}


@pytest.fixture(scope="module")
def concepts() -> tuple[Concept, ...]:
    return load_concepts()


@pytest.fixture(scope="module")
def scenes(concepts: tuple[Concept, ...]) -> list[Scene]:
    generator = np.random.default_rng(0)
    pool = range(len(concepts))
    return [draw_scene(draw_concepts(draw_pattern(generator), pool, generator), generator) for _ in range(600)]


def mentioned(caption: str, concepts: tuple[Concept, ...]) -> list[tuple[str, int, str]]:
    """The noun phrases of a caption in order: determiner, concept index, form; longest names first."""
    forms = {concept.name: concept.index for concept in concepts} | {c.plural: c.index for c in concepts}
    longest = "|".join(sorted(forms, key=len, reverse=True))
    return [(m[1], forms[m[2]], m[2]) for m in re.finditer(rf"\b(a pair of|\w+) ({longest})\b", caption)]


def scene_of(*items: Item, ground: str = "red") -> Scene:
    return Scene(items=items, style=0, ground=ground, ground_jitter=(0, 0, 0), shade=(0, 0))


def test_captions_name_every_thing_with_its_count_and_the_right_ground(
    concepts: tuple[Concept, ...], scenes: list[Scene]
) -> None:
    writer, generator = CaptionWriter(concepts), np.random.default_rng(1)
    for scene in scenes:
        captions = writer.captions(scene, generator)
        assert len(set(captions)) == 5
        assert scene.ground in captions[0].split()
        for caption in captions:
            matches = mentioned(caption, concepts)
            assert {index: COUNTS[word] for word, index, _ in matches} == scene.counts, caption
            assert len(matches) == len(scene.counts), caption
            grounds = set(caption.split()) & set(GROUNDS)
            assert grounds <= {scene.ground}, caption


def test_captions_are_short_lower_case_ascii_words(concepts: tuple[Concept, ...], scenes: list[Scene]) -> None:
    writer, generator = CaptionWriter(concepts), np.random.default_rng(2)
    for scene in scenes:
        for caption in writer.captions(scene, generator):
            assert re.fullmatch(r"[a-z]+( [a-z]+){4,15}", caption), caption
            assert "{" not in caption


def test_relations_in_captions_hold(concepts: tuple[Concept, ...], scenes: list[Scene]) -> None:
    writer, generator = CaptionWriter(concepts), np.random.default_rng(3)
    words = {word: side for side, options in SIDES.items() for word in options}
    longest_first = "|".join(sorted(words, key=len, reverse=True))
    axis = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}
    checked = 0
    for scene in scenes:
        for caption in writer.captions(scene, generator):
            relation = re.search(rf" ({longest_first}) (?=a |an |one |two |three |four )", caption)
            if relation is None or len(scene.counts) < 2:
                continue
            first = mentioned(caption[: relation.start()], concepts)[-1][1]
            second = mentioned(caption[relation.end() :], concepts)[0][1]
            count, sign = axis[words[relation[1]]]
            ours = [item.center[count] * sign for item in scene.items if item.concept == first]
            theirs = [item.center[count] * sign for item in scene.items if item.concept == second]
            assert min(ours) > max(theirs), caption
            checked += 1
    assert checked > 200


def test_sides_and_regions_by_hand() -> None:
    left, right = Item(0, 0, 30, 30), Item(1, 60, 32, 30)
    scene = scene_of(left, right)
    assert sides(scene, 0, 1) == ["left"]
    assert sides(scene, 1, 0) == ["right"]
    assert sides(scene_of(left, Item(1, 4, 36, 30)), 0, 1) == []
    assert (region(left), region(right), region(Item(0, 33, 33, 30))) == ("left", "right", "middle")


def test_articles_follow_sound() -> None:
    assert [article(w) for w in ("apple", "unicorn", "hourglass", "umbrella", "cat")] == ["an", "a", "an", "an", "a"]


def test_ground_colours_are_the_ones_named() -> None:
    assert set(GROUND_COLORS) == set(GROUNDS)
    item = Item(0, 0, 0, 30)
    corner = np.asarray(render(scene_of(item, ground="blue")))[-1, -1]
    assert tuple(corner) == GROUND_COLORS["blue"]


def test_answers_are_true_and_balanced(concepts: tuple[Concept, ...], scenes: list[Scene]) -> None:
    writer, generator = QuestionWriter(concepts, range(len(concepts))), np.random.default_rng(4)
    answer_counts: Counter[str] = Counter()
    for scene in scenes:
        questions = writer.questions(scene, generator)
        assert 2 <= len(questions) <= 3
        for question in questions:
            _check_answer(question, scene, concepts)
            answer_counts[question.answer] += 1
    assert abs(answer_counts["yes"] - answer_counts["no"]) <= 4
    assert max(answer_counts[str(n)] for n in range(4)) - min(answer_counts[str(n)] for n in range(4)) <= 2
    assert answer_counts["3"] > 15


def _check_answer(question: Question, scene: Scene, concepts: tuple[Concept, ...]) -> None:
    by_form = {c.name: c.index for c in concepts} | {c.plural: c.index for c in concepts}
    text, answer = question.text, question.answer
    assert len(question.answers) == ANNOTATORS
    assert Counter(question.answers)[answer] >= 7
    if counted := re.fullmatch(r"how many (.+) are there\?", text):
        assert scene.counts.get(by_form[counted[1]], 0) == int(answer)
    elif there := re.fullmatch(r"is there an? (.+)\?", text):
        assert (by_form[there[1]] in scene.counts) == (answer == "yes")
    elif ground := re.fullmatch(r"is the ground (.+)\?", text):
        assert (ground[1] == scene.ground) == (answer == "yes")
    elif text == "what color is the ground?":
        assert answer == scene.ground
        assert set(question.answers) <= {answer, GROUND_SYNONYMS.get(answer, answer)}
    elif side := re.fullmatch(r"what is (to the left of|to the right of|above|below) the (.+)\?", text):
        expected = next(name for name, words in SIDES.items() if side[1] in words)
        assert expected in sides(scene, by_form[answer], by_form[side[2]])
    else:
        assert text in ("what is this?", "what are these?")
        assert list(scene.counts) == [by_form[answer]]
