"""The sentences that the tiny language models read: captions and questions over all concepts, without pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from blip2_train.data.emoji_scenes.concepts import load_concepts
from blip2_train.data.emoji_scenes.grammar import CaptionWriter
from blip2_train.data.emoji_scenes.questions import Question, QuestionWriter
from blip2_train.data.emoji_scenes.scenes import draw_concepts, draw_pattern, draw_scene

PROMPTS = ("Question: {} Answer:", "Question: {} Short answer:")
"""Forms in which the language models see questions: BLIP-2's prompts."""
CONTEXT_SHARE = 0.75
"""Share of the questions that follow a caption of their scene."""
BATCHES_AT_ONCE = 16
PROMPT_WORDS = ("Question", "Answer", "Short")


def described_scenes(seed: int) -> Iterator[tuple[list[str], list[Question]]]:
    """Captions and questions of endless scenes over all concepts, novel ones included."""
    concepts = load_concepts()
    everything = range(len(concepts))
    captions, questions = CaptionWriter(concepts), QuestionWriter(concepts, everything)
    generator = np.random.default_rng(seed)
    while True:
        scene = draw_scene(draw_concepts(draw_pattern(generator), everything, generator), generator)
        yield captions.captions(scene, generator, count=3), questions.questions(scene, generator)


def sentences(seed: int) -> Iterator[str]:
    """Captions, and questions followed by their answer."""
    for captions, questions in described_scenes(seed):
        yield from captions
        for question in questions:
            yield f"{question.text} {question.answer}"


def language_model_texts(seed: int) -> Iterator[str]:
    """What the language models read: captions alone, in pairs, after `a photo of`; questions alone and after captions.

    Two captions of one scene say the same in other words, which teaches a model to look back at what it has read.

    A question that follows a caption of its scene can be answered from the text; the answer of a question that stands
    alone can only be guessed from how often each is right.
    """
    generator = np.random.default_rng([seed, 1])
    for captions, questions in described_scenes(seed):
        yield captions[0]
        yield f"a photo of {captions[1]}"
        yield f"{captions[2]}. {captions[0]}"
        for question in questions:
            prompt = PROMPTS[int(generator.integers(len(PROMPTS)))].format(question.text)
            context = (
                f"{captions[int(generator.integers(len(captions)))]} " if generator.random() < CONTEXT_SHARE else ""
            )
            yield f"{context}{prompt} {question.answer}"


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
    for (captions, questions), _ in zip(described_scenes(seed), range(scenes), strict=False):
        for caption in captions:
            words.update(caption.split())
        for question in questions:
            words.update(question.text.replace("?", "").split())
            for answer in question.answers:
                words.update(answer.split())
    words.update(" ".join(PROMPTS).lower().replace("{}", "").replace(":", "").split())
    words.update("a photo of true false none nothing thing things picture pictures color number".split())
    return sorted(words)
