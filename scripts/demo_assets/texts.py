"""The sentences that the tiny language models read: captions and questions over all concepts, without images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from blip2_train.data.emoji_scenes.concepts import NUMBER_WORDS, load_concepts
from blip2_train.data.emoji_scenes.grammar import CaptionWriter
from blip2_train.data.emoji_scenes.questions import Question, QuestionWriter
from blip2_train.data.emoji_scenes.scenes import Scene, draw_concepts, draw_pattern, draw_scene

PROMPTS = ("Question: {} Answer:", "Question: {} Short answer:")
"""Forms in which the language models see questions: BLIP-2's prompts."""
CONTEXT_SHARE = 0.75
"""Share of the questions that follow a caption of their scene."""
KEYWORD_SHARE = 0.75
"""Share of the captions with a context whose context is a list of words, not another caption."""
REPEATS = 3
"""Most times that a word stands in such a list; the list's order is random, so only what it holds can be learnt."""
PACKED_SHARE = 0.7
"""Share of the contexts that end with `separator` where there is one; the others end with a blank."""
BATCHES_AT_ONCE = 16
PROMPT_WORDS = ("Question", "Answer", "Short")


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedScene:
    """A scene in words."""

    scene: Scene
    captions: list[str]
    questions: list[Question]
    words: list[str]
    """What there is, with numbers, and the ground."""


def described_scenes(seed: int, rounds: int = 0, more_yes_no: int = 0) -> Iterator[DescribedScene]:
    """Endless scenes over all concepts, novel ones included.

    Args:
        seed: Of everything.
        rounds: How often more questions are drawn, beside the three that every scene has.
        more_yes_no: How many more questions are drawn that are answered by yes or no.
    """
    concepts = load_concepts()
    everything = range(len(concepts))
    captions, questions = CaptionWriter(concepts), QuestionWriter(concepts, everything)
    generator = np.random.default_rng(seed)
    while True:
        scene = draw_scene(draw_concepts(draw_pattern(generator), everything, generator), generator)
        counted = [(concepts[kind], count) for kind, count in scene.counts.items()]
        words = [kind.name if count == 1 else f"{NUMBER_WORDS[count]} {kind.plural}" for kind, count in counted]
        written = captions.captions(scene, generator, count=3)
        all_questions = questions.questions(scene, generator)
        for _ in range(rounds):
            all_questions += questions.questions(scene, generator)
        all_questions += [questions.yes_no(scene, generator) for _ in range(more_yes_no)]
        different = list({question.text: question for question in all_questions}.values())
        yield DescribedScene(scene=scene, captions=written, questions=different, words=[*words, scene.ground])


def after(context: str, separator: str, generator: np.random.Generator) -> str:
    """A context and what ends it: mostly `separator`, else a blank."""
    return context + (separator if generator.random() < PACKED_SHARE else " ")


def listed(words: list[str], generator: np.random.Generator) -> list[str]:
    """Key words in random order, each up to `REPEATS` times."""
    repeated = [word for word in words for _ in range(int(generator.integers(1, REPEATS + 1)))]
    return [repeated[i] for i in generator.permutation(len(repeated))]


def sentences(seed: int) -> Iterator[str]:
    """Captions, and questions followed by their answer."""
    for scene in described_scenes(seed):
        yield from scene.captions
        for question in scene.questions:
            yield f"{question.text} {question.answer}"


def language_model_texts(seed: int, separator: str = " ", lists: int = 0) -> Iterator[str]:
    """What the language models read: captions and questions, alone and after a context that describes the same scene.

    What follows a context is a paraphrase, or can be answered from it, which teaches a model to look back
    at what it has read; a question that stands alone can only be guessed.

    Args:
        seed: Of the scenes and of what is drawn.
        separator: What ends most contexts. With OPT's end of text it is as in OPT's own training, where documents are
            packed one after the other; and as in stage 2, where the queries stand in front of a text's start token.
        lists: More lists of key words for each scene, each with `separator` and a caption.
    """
    generator = np.random.default_rng([seed, 1])

    for scene in described_scenes(seed):
        captions, words = scene.captions, scene.words
        yield captions[0]
        yield f"a photo of {captions[1]}"
        yield f"{captions[2]}. {captions[0]}"
        shuffled = listed(words, generator)
        description = " ".join(shuffled) if generator.random() < KEYWORD_SHARE else captions[2]
        yield after(description, separator, generator) + captions[1]
        yield after(" ".join(reversed(shuffled)), separator, generator) + captions[0]
        for question in scene.questions:
            prompt = PROMPTS[int(generator.integers(len(PROMPTS)))].format(question.text)
            description = captions[int(generator.integers(len(captions)))]
            yield (
                after(description, separator, generator) if generator.random() < CONTEXT_SHARE else ""
            ) + f"{prompt} {question.answer}"
        for number in range(lists):
            yield " ".join(listed(words, generator)) + separator + captions[number % len(captions)]


def batches_by_length(texts: Iterator[str], batch_size: int, generator: np.random.Generator) -> Iterator[list[str]]:
    """Endless batches of texts of similar length, so that little is padding, in random order."""
    while True:
        drawn = sorted((next(texts) for _ in range(BATCHES_AT_ONCE * batch_size)), key=len)
        for i in generator.permutation(BATCHES_AT_ONCE):
            yield drawn[i * batch_size : (i + 1) * batch_size]


def vocabulary(seed: int, scenes: int = 5000) -> list[str]:
    """All words of the world in alphabetical order."""
    concepts = load_concepts()
    words = set()
    for concept in concepts:
        words.update(f"{concept.name} {concept.plural} {concept.group} {concept.synonym}".split())
    for scene in islice(described_scenes(seed), scenes):
        for caption in scene.captions:
            words.update(caption.split())
        for question in scene.questions:
            words.update(question.text.replace("?", "").split())
            for answer in question.answers:
                words.update(answer.split())
    words.update(" ".join(PROMPTS).lower().replace("{}", "").replace(":", "").split())
    words.update("a photo of true false none nothing thing things picture pictures color number".split())
    return sorted(words)
