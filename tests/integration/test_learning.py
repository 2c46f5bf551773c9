"""The demo recipe learns from captions, and from nothing else: with captions of other scenes it stays at chance."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANCE_R10 = 100 * 10 / 256


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_shuffled_captions_stay_at_chance(tmp_path: Path) -> None:
    """Both runs at once, one thread each; bounds: 5 times chance with the right captions, 2 times with wrong ones."""
    common = [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        "experiment=demo_stage1",
        "trainer=cpu",
        "steps=150",
        "global_batch_size=32",
        "validate_every=150",
        "checkpoint_every=150",
        "data.num_workers=0",
        "data.prepare.train_scenes=8000",
        f"paths.data_dir={tmp_path / 'data'}",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    right, wrong = (
        subprocess.Popen(
            [*common, f"paths.run_dir={tmp_path / name}", f"data.shuffle_captions={name == 'wrong'}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("right", "wrong")
    )
    for process in (right, wrong):
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed[-3000:]
    scores = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in ("right", "wrong")}
    for direction in ("image_to_text", "text_to_image"):
        assert scores["right"][f"val/{direction}_r10"] > 5 * CHANCE_R10, scores["right"]
        assert scores["wrong"][f"val/{direction}_r10"] < 2 * CHANCE_R10, scores["wrong"]
    chance = scores["wrong"]["chance/val_loss_itc"]
    assert scores["right"]["val/loss_itc"] < chance - 0.5
    assert scores["wrong"]["val/loss_itc"] > chance - 0.1
