"""Every evaluation composes, reads the official files where `prepare.py` wants them, and says the paper's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2_train.config.compose import compose_evaluation, config_folder
from blip2_train.config.overrides import options
from blip2_train.data.official.sets import SETS
from blip2_train.errors import ConfigError

TASKS = options("evaluation", [config_folder()])
OFFICIAL = [task for task in TASKS if not task.startswith(("demo_", "own_"))]
BEAMS = {"num_beams": 5, "max_new_tokens": 30, "min_new_tokens": None}  # table 7; the model decides
ANSWERS = {"num_beams": 5, "max_new_tokens": 10, "length_penalty": -1.0}  # section 4.1
NUMBERS = {
    "coco_caption": {"prompt": "a photo of", "generation": BEAMS, "split": "test"},
    "nocaps": {"prompt": "a photo of", "generation": BEAMS},
    "vqav2": {"generation": ANSWERS},
    "okvqa": {"generation": ANSWERS},
    "gqa": {"generation": ANSWERS, "metric": "exact"},
    "coco_retrieval": {"shortlist": 128, "max_text_length": 35, "split": "test"},
    "flickr30k_retrieval": {"shortlist": 128, "max_text_length": 35, "split": "test"},
}


def test_there_are_numbers_for_all() -> None:
    assert set(OFFICIAL) == set(NUMBERS)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_it_composes(task: str) -> None:
    given = [f"tasks.{task}.{'questions' if task == 'own_questions' else 'annotations'}=x"] * task.startswith("own_")
    config = compose_evaluation([f"evaluation={task}", "checkpoint=somewhere", *given])
    assert list(config.tasks) == [task] and config.tasks[task].name == task
    assert {key: config.tasks[task][key] for key in NUMBERS.get(task, {})} == NUMBERS.get(task, {})


@pytest.mark.slow
@pytest.mark.parametrize("task", OFFICIAL)
def test_it_reads_what_prepare_wants(task: str) -> None:
    node = compose_evaluation([f"evaluation={task}", "paths.data_dir=/data"]).tasks[task]
    official = {f"/data/{path}": file for files in SETS.values() for file in files for path in file.paths}
    named = [node[key] for key in ("annotations", "questions") if key in node]
    assert named and all(path in official for path in named)
    assert all(Path(node.images) in {Path("/data") / f for f in official[path].folders} for path in named)


def test_several_at_once() -> None:
    config = compose_evaluation(["evaluation=[coco_caption,nocaps]", "tasks.nocaps.limit=3"])
    assert list(config.tasks) == ["coco_caption", "nocaps"] and config.tasks.nocaps.limit == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "evaluation is not chosen"),
        (["evaluation=nocap"], "did you mean nocaps"),
        (["evaluation=nocaps", "trainer=gpu"], "there is no group 'trainer'"),
        (["evaluation=nocaps", "example=3"], "did you mean 'examples'"),
        (["evaluation=nocaps", "examples=-1"], "examples must be 0 or more"),
        (["evaluation=nocaps", "tasks.nocaps.batch_size=many"], "tasks.nocaps.batch_size"),
    ],
)
def test_a_wrong_setting_is_named(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compose_evaluation(overrides)
