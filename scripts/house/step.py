"""The files of the package that one training step of the demo passes, from asking for its batch to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from blip2_train.errors import TrainingError

_RUN = """
import json, sys
import blip2_train
blip2_train.train(blip2_train.compose(json.loads(sys.argv[1])))
"""


def files_of_a_step(root: Path, data: Path) -> list[str]:
    """Paths below the package, sorted; the demo's stage 1 is trained for three steps and the second is watched.

    Args:
        root: The checkout.
        data: Where the emoji scenes are, or are written (half a minute).

    Raises:
        TrainingError: if the steps fail.
    """
    with TemporaryDirectory() as folder:
        record = Path(folder) / "files.json"
        watch = f"{{_target_: house.watching.SecondStep, package: '{root / 'blip2_train'}', record: '{record}'}}"
        settings = ["experiment=demo_stage1", "trainer=cpu", "steps=3", "validate_every=null", "optim.warmup_steps=1"]
        settings += [f"paths.data_dir={data}", f"paths.output_dir={folder}", f"callbacks.watch={watch}"]
        scripts = Path(__file__).parents[1]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(scripts)))}
        command = [sys.executable, "-P", "-c", _RUN, json.dumps(settings)]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode or not record.exists():
            raise TrainingError(f"three steps of {root} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        files: list[str] = json.loads(record.read_text("utf-8"))
        return files
