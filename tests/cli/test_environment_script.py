"""Which Python `run_scripts/_environment.sh` takes, and when it makes one; the Pythons here are stand-ins that log."""

import shutil
import subprocess
from pathlib import Path

import pytest

STAND_IN = r"""#!/bin/bash
echo "$0 $*" >> "{log}"
folder=$(dirname "$0")
case "$*" in
  *_complete.py\ app) [ -e "$folder/has_app" ] ;;
  *_complete.py*) [ -e "$folder/has_project" ] ;;
  -c*) [ ! -e "$folder/too_old" ] ;;
  "-m pip --version") [ -e "$folder/has_pip" ] ;;
  "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; touch "$4/bin/has_pip" ;;
  "-m pip install "*) touch "$folder/has_project" ;;
esac
"""
NAMES = ("python", "python3", "python3.11", "python3.12", "python3.13")


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A copy of the scripts, beside a folder `bin` with nothing but the stand-ins and a few tools."""
    shutil.copytree(root / "run_scripts", tmp_path / "project" / "run_scripts")
    for name in ("bash", "dirname", "touch", "mkdir", "cp", "rm"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    for name in NAMES:
        stand_in(tmp_path, tmp_path / "bin" / name)
    return tmp_path / "project"


def stand_in(folder: Path, path: Path, *marks: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN.format(log=folder / "log"))
    path.chmod(0o755)
    for mark in marks:
        (path.parent / mark).touch()


def source(project: Path, extra: str = "") -> tuple[str, str, list[str], int]:
    """The Python that is chosen, what is said, what the Pythons were asked, and the exit code."""
    script = f'set -euo pipefail; EXTRA={extra}; source "{project}/run_scripts/_environment.sh"; echo "$PYTHON"'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=30,
        cwd=project.parent, env={"PATH": str(project.parent / "bin")},
    )  # fmt: skip
    log = project.parent / "log"
    return done.stdout.strip(), done.stderr, log.read_text().splitlines() if log.exists() else [], done.returncode


def test_the_active_environment_is_used_if_it_has_the_project(project: Path) -> None:
    (project.parent / "bin" / "has_project").touch()
    chosen, message, calls, code = source(project)
    assert (chosen, message, len(calls), code) == ("python", "", 1, 0)


def test_an_environment_made_before_is_used(project: Path) -> None:
    stand_in(project.parent, project / ".venv" / "bin" / "python", "has_project", "has_pip")
    chosen, message, calls, code = source(project)
    assert (chosen, message, code) == (f"{project}/.venv/bin/python", "", 0)
    assert not any("install" in line for line in calls)


def test_on_a_fresh_machine_one_is_made_and_reported_in_one_line(project: Path) -> None:
    chosen, message, calls, code = source(project)
    assert (chosen, code) == (f"{project}/.venv/bin/python", 0)
    assert len(message.splitlines()) == 1
    assert f"{project}/.venv" in message
    assert any("-m venv --clear" in line for line in calls)
    assert calls[-1].startswith(f"{project}/.venv/bin/python -m pip install")
    assert source(project)[1] == "", "the second time nothing is said"


def test_what_an_extra_adds_is_no_whole_installation(project: Path) -> None:
    stand_in(project.parent, project / ".venv" / "bin" / "python", "has_project", "has_pip")
    chosen, message, calls, code = source(project, "app")
    assert (chosen, code) == (f"{project}/.venv/bin/python", 0)
    assert message == f"installing what the extra app adds into {project}/.venv (once)\n"
    assert calls[-1].endswith(f"--editable {project}[app]") and not any("-m venv" in line for line in calls)


def test_help_installs_nothing(project: Path) -> None:
    done = subprocess.run(
        ["bash", str(project / "run_scripts" / "app.sh"), "--model", "x", "--help"], capture_output=True, text=True,
        check=True, timeout=30, cwd=project.parent, env={"PATH": str(project.parent / "bin")},
    )  # fmt: skip
    about, how = done.stdout.splitlines()
    assert about.startswith("The web app: ") and how.startswith("(not all that it needs is installed: ")
    assert not (project / ".venv").exists() and not done.stderr
    (project.parent / "bin" / "has_project").touch()
    assert source(project)[0] == "python"


def test_an_environment_without_pip_is_made_anew(project: Path) -> None:
    stand_in(project.parent, project / ".venv" / "bin" / "python")
    _, _, calls, code = source(project)
    assert code == 0
    assert any("-m venv --clear" in line for line in calls)


def test_an_interrupted_installation_goes_on(project: Path) -> None:
    stand_in(project.parent, project / ".venv" / "bin" / "python", "has_pip")
    _, _, calls, code = source(project)
    assert code == 0
    assert not any("-m venv" in line for line in calls)
    assert calls[-1].startswith(f"{project}/.venv/bin/python -m pip install")


def test_without_a_usable_python_the_error_is_one_line(project: Path) -> None:
    (project.parent / "bin" / "too_old").touch()
    chosen, message, _, code = source(project)
    assert (chosen, code) == ("", 2)
    assert "3.11" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "recipe", "settings", "two_processes"),
    [
        ("pretrain_stage1", "demo_stage1", ["steps=9"], True),
        ("pretrain_stage1", "demo_stage1", ["--cfg", "job"], True),
        ("pretrain_stage2", "demo_stage2_opt", ["experiment=demo_stage2_t5"], True),
        ("finetune_caption", "demo_caption_opt", [], True),
        ("finetune_vqa", "demo_vqa", [], True),
        ("finetune_retrieval", "demo_retrieval", [], True),
        ("pretrain_stage1", "demo_stage1", ["experiment=stage1_vit_g"], False),
        ("pretrain_stage1", "demo_stage1", ["trainer=cpu"], False),
        ("pretrain_stage1", "demo_stage1", ["--multirun", "seed=0,1"], False),
    ],
)
def test_on_a_cpu_the_demo_trains_in_two_processes(
    project: Path, script: str, recipe: str, settings: list[str], two_processes: bool
) -> None:
    (project.parent / "bin" / "has_project").touch()
    (project.parent / "bin" / "uname").write_text("#!/bin/bash\necho Linux\n")
    (project.parent / "bin" / "uname").chmod(0o755)
    subprocess.run(
        ["bash", str(project / "run_scripts" / f"{script}.sh"), *settings],
        check=True, timeout=30, cwd=project.parent, env={"PATH": str(project.parent / "bin")},
    )  # fmt: skip
    message = (project.parent / "log").read_text().splitlines()[-1].split()
    assert message[1:3] == [f"{project}/scripts/train.py", f"experiment={recipe}"]
    assert message[len(message) - len(settings) :] == settings
    gpu = any(Path(f"/dev/{device}").exists() for device in ("nvidiactl", "kfd", "dxg"))
    assert ("trainer=ddp_cpu" in message) == (two_processes and not gpu)
