"""A run whose frozen tower computes in 8 bits writes and resumes what a run without it does."""

from __future__ import annotations

import importlib.util
import json
import signal
from pathlib import Path

import pytest
from training_process import losses, run_folder, start, write_data

from blip2_train.pretrained import load_pretrained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao"),
]
SETTINGS = ("data.num_workers=0",)


def fingerprint(folder: Path) -> str:
    manifest = json.loads((run_folder(folder) / "export/manifest.json").read_text())
    return str(manifest["frozen_fingerprint"])


def test_it_goes_on_with_and_without(tmp_path: Path) -> None:
    workspace = write_data(tmp_path)
    plain, folder = workspace / "plain", workspace / "killed"
    start(plain, *SETTINGS, other=True)
    start(folder, *SETTINGS, "trainer.vision_quantization=int8", kill_at=4, code=-signal.SIGKILL)
    start(folder, *SETTINGS, "trainer.vision_quantization=int8", "resume_from=last", kill_at=7, code=-signal.SIGKILL)
    start(folder, *SETTINGS, "resume_from=last")
    assert fingerprint(folder) == fingerprint(plain) != ""
    one, other = ({kind: float(row["train/loss"]) for kind, row in losses(path).items() if kind.endswith("train")}
                  for path in (plain, folder))  # fmt: skip
    assert one.keys() == other.keys() and one != other
    assert list(other.values()) == pytest.approx(list(one.values()), rel=0.05)
    with pytest.raises(Exception, match="random"):  # its tower is in no file: no option of this test's
        load_pretrained(run_folder(folder) / "export", vision_quantization="int8")
