"""How captions of a set are generated: as the option says, and where it leaves that open, as the model's recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import our_model
from tiny_writer import writer

from blip2_train.config.compose import compose, compose_evaluation
from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.evaluation.captioning import CaptioningTask
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.run_task import run_task
from blip2_train.models.configs import GenerationOptions

RECIPE = {"opt": "caption_coco_opt_2.7b", "t5": "caption_coco_flan_t5_xl"}


def task(**generation: Any) -> CaptioningTask:
    images = [AnnotatedImage(image_id=1, path="1.png", captions=("a cat",))]
    return CaptioningTask("set", "A set", images, Path(), generation=generation)


def used(model: Blip2, made: CaptioningTask, monkeypatch: pytest.MonkeyPatch) -> GenerationOptions:
    """The options with which the model generates for a task."""
    seen: list[GenerationOptions] = []
    generate: Any = model.network.generate

    def watched(**given: Any) -> torch.Tensor:
        seen.append(given["options"])
        return torch.as_tensor(generate(**given))

    monkeypatch.setattr(model.network, "generate", watched)
    made.start(model)
    made.predict(model, 0, torch.zeros(1, 3, 32, 32))
    assert made.settings()["generation"].get("min_new_tokens", 1) == seen[0].min_new_tokens
    return seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["opt", "t5"])
@pytest.mark.parametrize("name", ["coco_caption", "nocaps"])
def test_captions_are_as_long_as_the_recipe_of_the_model_wants(
    name: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = compose_evaluation([f"evaluation={name}", "checkpoint=x"]).tasks[name].generation
    recipe = compose([f"experiment={RECIPE[family]}", "init_from=null"]).module.generation
    options = used(writer(family), task(**option), monkeypatch)
    for key in ("num_beams", "max_new_tokens", "min_new_tokens"):
        assert getattr(options, key) == recipe[key]


def test_what_is_set_counts_and_what_is_not_there_has_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = "tasks.nocaps.generation.min_new_tokens=5"
    option = compose_evaluation(["evaluation=nocaps", "checkpoint=x", setting]).tasks.nocaps.generation
    assert used(writer("t5"), task(**option), monkeypatch).min_new_tokens == 5
    assert used(writer("t5"), task(num_beams=2), monkeypatch).min_new_tokens == 1


def test_each_model_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(min_new_tokens=None, num_beams=1)
    options = [used(writer(family), made, monkeypatch).min_new_tokens for family in ("t5", "opt")]
    assert options == [8, 4]


@pytest.mark.slow
def test_predictions_of_another_length_are_not_taken_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was chosen is among the settings that the file of predictions keeps."""
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    made = task(min_new_tokens=None, num_beams=1)
    made.folder = tmp_path
    run_task(writer("t5"), made, tmp_path / "predictions", {}, lambda *_: None)
    text = "".join(path.read_text() for path in (tmp_path / "predictions").rglob("*") if path.is_file())
    assert '"min_new_tokens": 8' in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"num_beams": 3, "max_new_tokens": 29, "min_new_tokens": 9}),
        (
            {"num_beams": 5, "max_new_tokens": 30, "min_new_tokens": None},
            {"num_beams": 5, "max_new_tokens": 30, "min_new_tokens": 9},
        ),
        ({"max_new_tokens": 5, "do_sample": True}, {"num_beams": 1, "max_new_tokens": 5, "min_new_tokens": 5}),
    ],
)
def test_a_stage_1_model_describes_by_its_q_former(
    given: dict[str, Any], expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, processor, _ = our_model("retrieval")
    model, made = Blip2(network, processor), task(**given)
    seen: list[GenerationOptions] = []
    generate: Any = network.generate

    def watched(pixels: torch.Tensor, ids: torch.Tensor, options: GenerationOptions, *more: Any, **ends: int) -> Any:
        seen.append(options)
        return generate(pixels, ids, options, *more, **ends)

    monkeypatch.setattr(network, "generate", watched)
    made.start(model)
    (row,) = made.predict(model, 0, torch.zeros(1, 3, 32, 32))
    assert row["image_id"] == 1 and row["caption"]
    assert {name: getattr(seen[0], name) for name in expected} == expected
    assert made.settings()["generation"].items() >= expected.items()
