"""The demo recipes learn from what belongs together, and from nothing else.

Stage 1 with captions of other scenes stays at chance, and stage 2 with images of other scenes says nothing of what it
sees. That stage 2 needs stage 1 cannot be shown in this world: which of the two is ahead depends on the seed, see
`run_scripts/study.sh stage2`.
"""

import json
from pathlib import Path

import pytest
from warm_process import WarmProcess

from blip2_train.data.emoji_scenes.world import ensure_world

ROOT = Path(__file__).parents[2]
CHANCE_R10 = 100 * 10 / 256
WORLD = {"train_scenes": 3200, "val_scenes": 256, "test_scenes": 0, "nocaps_scenes": 0}


def length(steps: int) -> list[str]:
    """Settings of a run that is validated and saved at its end."""
    every = [f"{what}={steps}" for what in ("steps", "validate_every", "checkpoint_every")]
    return [*every, "optim.warmup_steps=20"]


def train_together(folder: Path, runs: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Run several commands at once, one thread each; results of each by name."""
    common = [str(ROOT / "scripts" / "train.py"), "trainer=cpu", "data.num_workers=0"]
    common += [f"paths.data_dir={folder / 'data'}", *(f"data.prepare.{name}={count}" for name, count in WORLD.items())]
    processes = [
        WarmProcess([*common, *arguments, f"paths.run_dir={folder / name}"], XDG_CACHE_HOME=str(folder / "cache"))
        for name, arguments in runs.items()
    ]
    for process in processes:
        output, errors = process.communicate(timeout=900)
        assert process.returncode == 0, output[-3000:] + errors[-3000:]
    return {name: json.loads((folder / name / "results.json").read_text()) for name in runs}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the world, which the first runs would otherwise both write."""
    folder = tmp_path_factory.mktemp("learning")
    ensure_world(folder / "data" / "emoji_scenes", **WORLD)
    return folder


@pytest.fixture(scope="module")
def stage_1(workspace: Path) -> dict[str, dict[str, float]]:
    """Scores after training on right and on wrong captions."""
    common = ["experiment=demo_stage1", "global_batch_size=16", "optim.lr=3e-3", *length(110)]
    runs = {"right": common, "wrong": [*common, "data.shuffle_captions=true"]}
    return train_together(workspace, runs)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_stage_1_with_wrong_captions_stays_at_chance(stage_1: dict[str, dict[str, float]]) -> None:
    """Bounds: 5 times chance with the right captions, 2 times with wrong ones.

    R@10 is 38.7 and 39.1 % with the recipe's seed, 42, 37.5 and 39.1 % with seed 1, 38.7 and 38.7 % with seed 2. Wrong
    captions were tried with seed 42 alone.
    """
    chance = stage_1["wrong"]["chance/val_loss_itc"]
    for direction in ("image_to_text", "text_to_image"):
        assert stage_1["right"][f"val/{direction}_r10"] > 5 * CHANCE_R10, stage_1["right"]
        assert stage_1["wrong"][f"val/{direction}_r10"] < 2 * CHANCE_R10, stage_1["wrong"]
    assert stage_1["right"]["val/loss_itc"] < chance - 0.5
    assert stage_1["wrong"]["val/loss_itc"] > chance - 0.1


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.usefixtures("stage_1")
def test_stage_2_needs_its_images(workspace: Path) -> None:
    """Bound: at most half the CIDEr. A caption that fits no image in particular scores about 0.1 in this world."""
    common = ["experiment=demo_stage2_opt_instruct", "global_batch_size=16", "module.generation.num_beams=1"]
    common += [*length(110), f"init_from={workspace / 'right'}"]
    runs = train_together(workspace, {"right images": common, "others": [*common, "data.shuffle_captions=true"]})
    cider = {name: results["val/cider"] for name, results in runs.items()}
    assert cider["others"] < 0.5 * cider["right images"], cider
