"""Training texts of the instructed tiny OPT: sentences after a context, questions after one context, and drills."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from blip2_train.data.emoji_scenes.concepts import load_concepts
from blip2_train.data.emoji_scenes.questions import SIDE_QUESTIONS
from blip2_train.data.emoji_scenes.scenes import GROUNDS
from demo_assets.texts import PROMPTS, DescribedScene, after, described_scenes, listed

ROUNDS, MORE_YES_NO = 3, 3
"""How often more questions are drawn for a scene, and how many more of them are answered by yes or no."""
DRILLS, DRILL_LENGTH, GROUND_SHARE = 3, (6, 10), 0.25
"""Drills for each scene, fewest and most words of one, and the share of its words that are grounds."""
LIST_SHARE = 0.7
"""Share of the drills that follow a list of key words; the others follow a caption."""
ALONE_SHARE = 0.1
"""Share of the groups of questions that stand without a context, so can only be guessed."""
ANSWERS = re.compile(r"\?(?: (?:Short a|A)nswer:)?( [^\n]*\n)")
"""Where a text answers; there, and only there, a text with questions is learnt from."""
_SIDES = tuple(form.split("{")[0] for form in SIDE_QUESTIONS.values())


def exercises(seed: int, separator: str) -> Iterator[str]:
    """Endless texts, each ending with a line end.

    To decide whether a word stands in its context, a model must compare two words, and nothing but a whole
    comparison lowers its loss. Questions alone need it too seldom: after 6,000 steps it still guessed. A drill asks up
    to ten times in one short text ("a dog? yes"); from drills alone it learns that in 300 steps, and then answers
    questions so, too.

    Args:
        seed: Of the scenes and of what is drawn.
        separator: What ends most contexts: OPT's end of text.
    """
    generator = np.random.default_rng([seed, 1])
    for scene in described_scenes(seed, rounds=ROUNDS, more_yes_no=MORE_YES_NO):
        captions, words = scene.captions, scene.words
        alone = generator.random() < 0.5
        yield (f"a photo of {captions[1]}" if alone else f"{captions[2]}. {captions[0]}") + "\n"
        for caption in captions[:2]:
            yield after(" ".join(listed(words, generator)), separator, generator) + f"{caption}\n"
        yield after(captions[2], separator, generator) + f"{captions[1]}\n"
        for reads_list in (True, False):
            yield _with_question(scene, reads_list, separator, generator)
        for _ in range(DRILLS):
            reads_list = generator.random() < LIST_SHARE
            description = " ".join(listed(words, generator)) if reads_list else captions[0]
            yield after(description, separator, generator) + _drill(scene, generator)


def _with_question(scene: DescribedScene, reads_list: bool, separator: str, generator: np.random.Generator) -> str:
    """All that a context answers of the scene's questions, a line each."""
    form = PROMPTS[int(generator.integers(len(PROMPTS)))]
    captions, questions = scene.captions, [scene.questions[i] for i in generator.permutation(len(scene.questions))]
    if reads_list:
        description = " ".join(listed(scene.words, generator))
        questions = [question for question in questions if not question.text.startswith(_SIDES)]
    else:
        description = captions[int(generator.integers(len(captions)))]
    context = "" if generator.random() < ALONE_SHARE else after(description, separator, generator)
    return context + "".join(f"{form.format(question.text)} {question.answer}\n" for question in questions)


def _drill(scene: DescribedScene, generator: np.random.Generator) -> str:
    """Words, half of them of the scene, each with yes or no and a line end."""
    things = [concept.name for concept in load_concepts()]
    present, ground = [things[kind] for kind in scene.scene.counts], scene.scene.ground
    lines = []
    for _ in range(int(generator.integers(DRILL_LENGTH[0], DRILL_LENGTH[1] + 1))):
        of_scene = generator.random() < 0.5
        if generator.random() < GROUND_SHARE:
            choices: Sequence[str] = [ground] if of_scene else GROUNDS
        else:
            choices = present if of_scene else things
        word = choices[int(generator.integers(len(choices)))]
        lines.append(f"a {word}? {'yes' if word == ground or word in present else 'no'}\n")
    return "".join(lines)
