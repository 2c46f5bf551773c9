"""Scores of a generative model on held-out images."""

import pytest
import torch

from blip2_train.data.emoji_scenes.naming import named_things, names_right
from blip2_train.evaluation.held_out_texts import GenerationEvaluation

PEOPLE = (("a fox on red", "a red ground with a fox"), ("two pears on blue",), ("an egg over a fox on green",))


def test_loss_is_per_token_over_all_batches_and_a_image_counts_once() -> None:
    evaluation = GenerationEvaluation({"names": names_right})
    evaluation.add_loss(torch.tensor(6.0), torch.tensor(2.0), 3)
    evaluation.add_loss(torch.tensor(1.0), torch.tensor(1.0), 1)
    evaluation.add_captions(torch.tensor([7, 8, 9]), ["a fox on red", "a pear on blue", "a fox and an egg"], PEOPLE)
    evaluation.add_captions(torch.tensor([9]), ["an egg under a lemon"], PEOPLE[2:])
    scores = evaluation.compute()
    assert scores["loss_lm"] == 7 / 4 and scores["lm_accuracy"] == 75.0 and scores["pictures"] == 3
    assert scores["names"] == pytest.approx(100 * 2 / 3)
    assert 0 < scores["cider"] < 10


@pytest.mark.slow
def test_right_captions_beat_those_of_other_images() -> None:
    def cider(captions: list[str]) -> float:
        evaluation = GenerationEvaluation()
        evaluation.add_captions(torch.arange(3), captions, PEOPLE)
        return evaluation.compute()["cider"]

    right = [texts[0] for texts in PEOPLE]
    assert cider(right) > 3 > 0.5 > cider([right[1], right[2], right[0]])


def test_nothing_held_out_is_no_score() -> None:
    assert GenerationEvaluation().compute() == {"loss_lm": 0.0, "lm_accuracy": 0.0, "pictures": 0.0}


@pytest.mark.parametrize(
    ("caption", "things"),
    [
        ("two foxes above a fire engine on orange", {"fox", "fire engine"}),
        ("a fire extinguisher and a foxglove", {"fire extinguisher"}),
        ("", set()),
    ],
)
def test_names_are_matched_whole_and_longest_first(caption: str, things: set[str]) -> None:
    assert named_things(caption) == things
