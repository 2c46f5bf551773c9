"""What the SLURM script starts, and when it asks for another turn; `srun` and `scontrol` are stand-ins that log."""

import os
import subprocess
from pathlib import Path

import pytest

STAND_IN = '#!/bin/bash\nprintf "%s\\n" "${{0##*/}}" "$@" >> "{log}"\n[ "${{0##*/}}" != srun ] || exit "$STATUS"\n'


def started(root: Path, folder: Path, status: int) -> tuple[list[str], int]:
    """Words of all commands that a job in `folder` gave, and its exit status, if training ends with `status`."""
    scripts = folder / "run_scripts"
    scripts.mkdir(exist_ok=True)
    (scripts / "_environment.sh").write_text(f'ROOT="{folder}" PYTHON=python\n')
    for name in ("srun", "scontrol"):
        (folder / name).write_text(STAND_IN.format(log=folder / "log"))
        (folder / name).chmod(0o755)
    (folder / "log").unlink(missing_ok=True)
    numbers = {"JOB_ID": "7", "NTASKS_PER_NODE": "8", "JOB_NUM_NODES": "2", "CPUS_PER_TASK": "4"}
    environment = {f"SLURM_{name}": value for name, value in numbers.items()}
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(folder), "STATUS": str(status)}
    script = root / "run_scripts" / "slurm" / "train.sh"
    done = subprocess.run(["bash", str(script), "experiment=a b"], cwd=folder, env=environment, check=False, timeout=30)
    return (folder / "log").read_text().splitlines(), done.returncode


@pytest.mark.parametrize("status", [0, 2, 143])
def test_a_run_that_ended_is_not_queued_again(root: Path, tmp_path: Path, status: int) -> None:
    words, code = started(root, tmp_path, status)
    assert code == status and "scontrol" not in words
    assert words[-1] == "experiment=a b" and {"trainer.devices=8", "trainer.num_nodes=2"} < set(words)


def test_a_run_that_was_interrupted_is_queued_again_and_goes_on(root: Path, tmp_path: Path) -> None:
    words, _ = started(root, tmp_path, 138)
    assert words[-3:] == ["scontrol", "requeue", "7"] and not any("resume_from" in word for word in words)
    (run,) = [word.removeprefix("paths.run_dir=").strip("'") for word in words if word.startswith("paths.run_dir=")]
    (Path(run) / "checkpoints").mkdir(parents=True)
    (Path(run) / "checkpoints" / "step_0000007.ckpt").touch()
    words, code = started(root, tmp_path, 0)
    assert code == 0 and words[-1] == f"resume_from='{run}'"
