"""The demo recipes learn from what belongs together, and from nothing else.

Stage 1 with captions of other scenes stays at chance. Stage 2 with pictures of other scenes says nothing of a picture,
and without stage 1 it says clearly less after the same steps, as the ablation of the paper (section 4.1) found.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANCE_R10 = 100 * 10 / 256
STAGE_1_STEPS, STAGE_2_STEPS = 500, 150


def train_together(folder: Path, runs: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Run several commands at once, one thread each; results of each by name."""
    common = [sys.executable, str(ROOT / "scripts" / "train.py"), "trainer=cpu", "data.num_workers=0"]
    common += ["data.prepare.train_scenes=8000", f"paths.data_dir={folder / 'data'}"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)]),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    processes = {
        name: subprocess.Popen(
            [*common, *arguments, f"paths.run_dir={folder / name}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, arguments in runs.items()
    }
    for process in processes.values():
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed[-3000:]
    return {name: json.loads((folder / name / "results.json").read_text()) for name in runs}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learning")


@pytest.fixture(scope="module")
def stage_1(place: Path) -> dict[str, dict[str, float]]:
    common = ["experiment=demo_stage1", f"steps={STAGE_1_STEPS}", "global_batch_size=32"]
    common += [f"validate_every={STAGE_1_STEPS}", f"checkpoint_every={STAGE_1_STEPS}"]
    return train_together(
        place, {name: [*common, f"data.shuffle_captions={name == 'wrong'}"] for name in ("right", "wrong")}
    )


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_stage_1_with_wrong_captions_stays_at_chance(stage_1: dict[str, dict[str, float]]) -> None:
    """Bounds: 5 times chance with the right captions, 2 times with wrong ones."""
    for direction in ("image_to_text", "text_to_image"):
        assert stage_1["right"][f"val/{direction}_r10"] > 5 * CHANCE_R10, stage_1["right"]
        assert stage_1["wrong"][f"val/{direction}_r10"] < 2 * CHANCE_R10, stage_1["wrong"]
    chance = stage_1["wrong"]["chance/val_loss_itc"]
    assert stage_1["right"]["val/loss_itc"] < chance - 0.5
    assert stage_1["wrong"]["val/loss_itc"] > chance - 0.1


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_stage_2_needs_its_pictures_and_stage_1(place: Path, stage_1: dict[str, dict[str, float]]) -> None:
    """Bounds: at most half the CIDEr. A caption that fits no picture in particular scores about 0.1 in this world.

    The runs are short, as what stage 1 gives in this world is a start: after some 1,000 steps of the recipe a Q-Former
    without it has caught up.
    """
    common = ["experiment=demo_stage2_opt", f"steps={STAGE_2_STEPS}", "global_batch_size=16", "optim.warmup_steps=20"]
    common += [f"validate_every={STAGE_2_STEPS}", f"checkpoint_every={STAGE_2_STEPS}", "module.generation.num_beams=1"]
    start = f"init_from={place / 'right'}"
    found = train_together(
        place,
        {
            "after stage 1": [*common, start],
            "other pictures": [*common, start, "data.shuffle_captions=true"],
            "no stage 1": [*common, "init_from=null"],
        },
    )
    cider = {name: results["val/cider"] for name, results in found.items()}
    assert cider["other pictures"] < 0.5 * cider["after stage 1"], cider
    assert cider["no stage 1"] < 0.5 * cider["after stage 1"], cider
