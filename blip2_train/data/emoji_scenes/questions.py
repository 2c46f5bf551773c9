"""Generates questions about scenes with ten annotators' answers, with balanced counts and as many yes as no."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blip2_train.data.emoji_scenes.concepts import Concept
from blip2_train.data.emoji_scenes.grammar import sides
from blip2_train.data.emoji_scenes.scenes import GROUNDS, Scene

ANNOTATORS = 10
QUESTIONS_PER_SCENE = 3
COUNTED = ("0", "1", "2", "3")
"""Counts that are the answer equally often; a four is used whenever it is the rarest."""
GROUND_SYNONYMS = {"gray": "grey", "purple": "violet", "pink": "rose", "orange": "amber", "brown": "tan"}
SIDE_QUESTIONS = {
    "left": "what is to the left of the {name}?",
    "right": "what is to the right of the {name}?",
    "above": "what is above the {name}?",
    "below": "what is below the {name}?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about one scene with its ten answers."""

    text: str
    kind: str
    """VQAv2's `question_type`: the question's first words."""
    answer_type: str
    """`yes/no`, `number` or `other`."""
    answer: str
    """The right answer (`multiple_choice_answer`)."""
    answers: tuple[str, ...]
    """The answers of the ten annotators."""


class QuestionWriter:
    """Generates questions of one split; it counts the answers so far, to balance the next ones."""

    def __init__(self, concepts: Sequence[Concept], askable: Sequence[int]) -> None:
        """Take all `concepts`, and the indices of those about which a question may ask although they are absent."""
        self.concepts, self.askable = concepts, askable
        self._counts: Counter[str] = Counter()

    def questions(self, scene: Scene, generator: np.random.Generator) -> list[Question]:
        """Three different questions about the scene."""
        drafts = [self._how_many(scene, generator), self.yes_no(scene, generator)]
        others = [self._ground(scene, generator), *self._what(scene, generator)]
        drafts += [others[i] for i in generator.permutation(len(others))]
        chosen: list[Question] = []
        for draft in drafts:
            if draft is not None and all(draft.text != other.text for other in chosen):
                chosen.append(draft)
        return chosen[:QUESTIONS_PER_SCENE]

    def _how_many(self, scene: Scene, generator: np.random.Generator) -> Question | None:
        options = [(str(count), kind) for kind, count in scene.counts.items()] + [("0", self._absent(scene, generator))]
        rarest = min(self._counts[answer] for answer in COUNTED)
        options = [(answer, kind) for answer, kind in options if self._counts[answer] <= rarest]
        if not options:
            return None
        answer, kind = options[int(generator.integers(len(options)))]
        self._counts[answer] += 1
        wrong = str(abs(int(answer) + (1 if generator.random() < 0.5 else -1)))
        answers = self._disagree(answer, wrong, int(generator.random() < 0.4), generator)
        text = f"how many {self.concepts[kind].plural} are there?"
        return Question(text=text, kind="how many", answer_type="number", answer=answer, answers=answers)

    def yes_no(self, scene: Scene, generator: np.random.Generator) -> Question:
        """A question whether a thing is there, or the ground has a colour: as often yes as no."""
        about_ground = generator.random() < 0.25
        pair = ("ground yes", "ground no") if about_ground else ("thing yes", "thing no")
        counts = [self._counts[answer] for answer in pair]
        yes = counts[0] < counts[1] or (counts[0] == counts[1] and generator.random() < 0.5)
        self._counts[pair[0] if yes else pair[1]] += 1
        if about_ground:
            others = [color for color in GROUNDS if color != scene.ground]
            color = scene.ground if yes else others[int(generator.integers(len(others)))]
            text, kind = f"is the ground {color}?", "is the"
        else:
            present = list(scene.counts)
            thing = present[int(generator.integers(len(present)))] if yes else self._absent(scene, generator)
            text, kind = f"is there {self.concepts[thing].counted(1)}?", "is there"
        answer, wrong = ("yes", "no") if yes else ("no", "yes")
        answers = self._disagree(answer, wrong, int(generator.random() < 0.2), generator)
        return Question(text=text, kind=kind, answer_type="yes/no", answer=answer, answers=answers)

    def _ground(self, scene: Scene, generator: np.random.Generator) -> Question:
        synonym = GROUND_SYNONYMS.get(scene.ground, "")
        answers = self._disagree(scene.ground, synonym, int(generator.integers(3)) if synonym else 0, generator)
        return Question(
            text="what color is the ground?",
            kind="what color is the",
            answer_type="other",
            answer=scene.ground,
            answers=answers,
        )

    def _what(self, scene: Scene, generator: np.random.Generator) -> list[Question]:
        kinds = list(scene.counts)
        if len(kinds) == 1:
            single = len(scene.items) == 1
            return [self._thing("what is this?" if single else "what are these?", kinds[0], not single, generator)]
        questions = []
        for anchor in kinds:
            for side, text in SIDE_QUESTIONS.items():
                answers = [kind for kind in kinds if kind != anchor and side in sides(scene, kind, anchor)]
                unclear = [k for k in kinds if k not in (anchor, *answers) and not sides(scene, k, anchor)]
                if len(answers) == 1 and not unclear and scene.counts[anchor] == 1:
                    many = scene.counts[answers[0]] > 1
                    questions.append(
                        self._thing(text.format(name=self.concepts[anchor].name), answers[0], many, generator)
                    )
        return questions

    def _thing(self, text: str, kind: int, many: bool, generator: np.random.Generator) -> Question:
        concept = self.concepts[kind]
        other = concept.synonym or concept.group
        dissent = int(generator.integers(4)) if concept.synonym else int(generator.random() < 0.5)
        answer = concept.plural if many else concept.name
        answers = self._disagree(answer, concept.name if many else other, dissent, generator)
        return Question(text=text, kind=" ".join(text.split()[:2]), answer_type="other", answer=answer, answers=answers)

    def _absent(self, scene: Scene, generator: np.random.Generator) -> int:
        while True:
            kind = self.askable[int(generator.integers(len(self.askable)))]
            if kind not in scene.counts:
                return kind

    def _disagree(self, answer: str, other: str, dissenters: int, generator: np.random.Generator) -> tuple[str, ...]:
        answers = [other] * dissenters + [answer] * (ANNOTATORS - dissenters)
        return tuple(answers[i] for i in generator.permutation(ANNOTATORS))
