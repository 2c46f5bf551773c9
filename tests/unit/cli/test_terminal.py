import errno
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

import yaml
from pytest import CaptureFixture, MonkeyPatch, mark, raises
from safetensors import SafetensorError
from wandb.errors import UsageError

from blip2_train.cli.terminal import config_from, run_command
from blip2_train.config.compose import compose, recipes
from blip2_train.errors import ConfigError


def main(arguments: list[str]) -> None:
    config_from(arguments, "What it does.", "python it.py")


def fail(_: list[str]) -> None:
    raise ConfigError("the key\nis wrong")


def test_help_names_every_recipe_and_the_machines(capsys: CaptureFixture[str]) -> None:
    assert run_command(main, ["--help"]) == 0
    shown = capsys.readouterr().out
    assert "What it does." in shown
    assert "python it.py experiment=" in shown
    assert all(name in shown for name in recipes())
    assert "ddp_cpu" in shown


def test_list_shows_what_each_recipe_is_for(capsys: CaptureFixture[str]) -> None:
    assert run_command(main, ["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipes()
    assert all(len(line.split()) > 5 for line in lines)


def test_a_list_comes_at_once(root: Path) -> None:
    script = [sys.executable, "-X", "importtime", "scripts/train.py", "--list"]
    done = subprocess.run(script, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    assert "stage1_vit_g" in done.stdout
    assert not {"torch", "transformers"} & {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


def test_cfg_prints_the_configuration(capsys: CaptureFixture[str]) -> None:
    assert run_command(main, ["experiment=demo_stage1", "seed=3", "paths.run_dir=here", "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == compose(
        ["experiment=demo_stage1", "seed=3", "paths.run_dir=here"]
    )


def test_later_settings_count() -> None:
    config = compose(
        ["experiment=stage1_vit_g", "experiment=demo_stage1", "seed=1", "seed=2", "trainer=ddp", "trainer=cpu"]
    )
    assert (config.experiment, config.seed, config.trainer.accelerator) == ("demo_stage1", 2, "cpu")


def test_errors_become_one_line(capsys: CaptureFixture[str], monkeypatch: MonkeyPatch) -> None:
    assert run_command(fail, []) == 2
    assert capsys.readouterr().err == "error: the key is wrong\n"
    monkeypatch.setenv("BLIP2_TRACEBACK", "1")
    with raises(ConfigError):
        run_command(fail, [])


def test_mistakes_of_ours_keep_their_traceback() -> None:
    with raises(ZeroDivisionError):
        run_command(lambda _: print(1 / 0), [])


@mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_path_that_cannot_be_written_to_is_one_line(capsys: CaptureFixture[str], number: int) -> None:
    def write(_: list[str]) -> None:
        raise OSError(number, "it does not go", "/some/place")

    assert run_command(write, []) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'/some/place'" in line and "paths.output_dir=" in line


def test_a_file_where_a_folder_has_to_be_is_one_line(tmp_path: Path, capsys: CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for make in ((tmp_path / "file" / "run").mkdir, (tmp_path / "file").mkdir):
        assert run_command(lambda _, make=make: make(), []) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(tmp_path / "file") in line and "is a file, not a folder" in line


def test_a_full_disk_that_safetensors_meets_is_one_line(capsys: CaptureFixture[str]) -> None:
    def write(_: list[str]) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    assert run_command(write, []) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line and "make room" in line


def test_what_weights_and_biases_refuses_is_one_line(capsys: CaptureFixture[str]) -> None:
    def log(_: list[str]) -> None:
        raise UsageError("No API key configured.")

    assert run_command(log, []) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No API key configured" in line and "WANDB_API_KEY" in line and "logger=csv" in line


def test_a_reader_that_has_seen_enough() -> None:
    code = "import sys; from blip2_train.cli.terminal import run_command; "
    code += "sys.exit(run_command(lambda _: [print('line', flush=True) for _ in range(10**5)]))"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", '"$0" -c "$1" | head -1', sys.executable, code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "line\n", "")


def test_other_broken_pipes_are_not_hidden() -> None:
    def write(_: list[str]) -> None:
        raise BrokenPipeError("a child of ours is gone")

    with NamedTemporaryFile("w") as file, MonkeyPatch.context() as patch, raises(BrokenPipeError):
        patch.setattr(sys, "stdout", file)
        run_command(write, [])
