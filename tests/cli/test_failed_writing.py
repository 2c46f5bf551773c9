"""A disk that is full, a path below a file, a logger without a key: one line each, and nothing half is left."""

from __future__ import annotations

import errno
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from foreign_models import our_model
from shard_files import write_shards, write_tokenizer
from tiny_run import arguments

import blip2_train
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.frozen_parts import load_language_model
from blip2_train.cli.convert_checkpoint import main as convert
from blip2_train.cli.make_shards import main as make_shards
from blip2_train.cli.system_errors import system_error_line
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train
from blip2_train.errors import ConfigError
from blip2_train.training.wandb_login import require_login


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk: no file of this process grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, processor, manifest = our_model("opt", weights="pretrained")
    load_language_model(made)
    return write_huggingface(tmp_path_factory.mktemp("model") / "huggingface", made, processor, manifest)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards(tmp_path / "shards", [9, 4, 13])
    write_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "file").write_text("a file\n")
    return tmp_path


def line_of(command: Callable[[list[str]], None], given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command(command, given) == 2
    errors = capsys.readouterr().err
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in errors, errors
    return line


@pytest.mark.parametrize("form", ["huggingface", "blip2_train"])
def test_a_disk_that_is_full_while_a_model_is_converted(
    form: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(100_000):
        line = line_of(convert, [str(model), "--format", form, "--to", str(tmp_path / "made")], capsys)
    assert "File too large" in line and "allow larger files" in line, line
    assert list(tmp_path.iterdir()) == [], "nothing half is left"


def test_output_below_a_file_is_one_line(workspace: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    below = workspace / "file" / "x"
    run = [one for one in arguments(workspace / "out") if not one.startswith("paths.output_dir")]
    for command, given in (
        (train, [*run, f"paths.output_dir={below}"]),
        (train, [*run, f"paths.run_dir={below}"]),
        (convert, [str(model), "--to", str(below)]),
        (make_shards, [f"source={workspace / 'shards'}", f"output={below}"]),
    ):
        line = line_of(command, given, capsys)
        assert str(workspace / "file") in line, line
        assert "is a file, not a folder" in line or "Not a directory" in line, line
    assert (workspace / "file").read_text() == "a file\n"


def test_errors_of_other_writers_are_known() -> None:
    error = type("SafetensorError", (Exception,), {"__module__": "safetensors_rust"})
    full = error("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "No space left on device (os error 28): make room there" in str(system_error_line(full))
    writer = RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0")
    assert "weights could not be written" in str(system_error_line(writer))
    assert "ulimit -n" in str(system_error_line(OSError(errno.EMFILE, "Too many open files")))
    assert system_error_line(ValueError("else")) is None and system_error_line(OSError(errno.ENOENT, "no")) is None


def test_wandb_without_a_key_is_one_line_and_prompts_nobody(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(workspace))
    loaded = set(sys.modules)
    line = line_of(train, [*arguments(workspace / "out"), "logger=wandb", "data.num_workers=0"], capsys)
    assert "logger=wandb has no key for api.wandb.ai: set WANDB_API_KEY" in line
    assert "logger.wandb.offline=true" in line
    assert "wandb" in loaded or "wandb" not in sys.modules, "it is not even imported"
    assert not list((workspace / "out").rglob("*.ckpt"))


def test_a_login_of_this_machine_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    require_login({"WANDB_API_KEY": "x"})
    require_login({"WANDB_MODE": "offline"})
    with pytest.raises(ConfigError, match=r"no key for wandb\.example\.org"):
        require_login({"WANDB_BASE_URL": "https://wandb.example.org:8080"})
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    require_login({})
    with pytest.raises(ConfigError, match="no key"):
        require_login({"NETRC": str(tmp_path / "none")})


def test_what_wandb_refuses_is_one_line() -> None:
    refusal = type("AuthenticationError", (Exception,), {"__module__": "wandb.errors"})
    message = str(system_error_line(refusal("wrong key")))
    assert "wrong key" in message and "logger.wandb.offline=true" in message


def test_a_broken_import_inside_the_package_names_its_cause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_home.py").write_text("import json\njson.no_such_function()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(blip2_train._HOMES, "train", "broken_home")
    cause = "blip2_train.train cannot be imported: broken_home fails: module 'json' has no attribute 'no_such_function'"
    with pytest.raises(ImportError, match=cause):
        _ = blip2_train.train
    with pytest.raises(ImportError, match=cause):
        exec("from blip2_train import train", {})
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = blip2_train.trian
