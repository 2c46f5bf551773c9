"""Shards made by workers of Ray are those of this machine's processes, also after kills."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from local_ray import LocalRay
from shard_files import write_shards, write_tar

from blip2_train.cli import make_shards
from blip2_train.cli.make_shards import main
from blip2_train.cli.terminal import run_command

_KILLED = """
import os, signal, sys
from blip2_train.cli import make_shards
from blip2_train.data.prepare import journal
journal.CHUNK = 16
shown = make_shards.PhaseProgress.__call__
left = [3]
def show(self, *values):
    shown(self, *values)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
make_shards.PhaseProgress.__call__ = show
make_shards.main(sys.argv[1:])
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
def test_ray_gives_the_same_shards_whole_or_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: LocalRay, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("blip2_train.data.prepare.journal.CHUNK", 16)
    source = write_shards(tmp_path / "source", (30, 31, 12))
    write_tar(source / "00003.tar", [("a.jpg", b"no image"), ("a.txt", "a cat")])
    settings = ["source=source", "samples_per_shard=9", "duplicates=keep"]
    main([*settings, "output=local", "workers=1"])
    on_ray = [*settings, "engine=ray", f"ray_address={local_ray.address}", "workers=2"]

    killed = subprocess.run([sys.executable, "-c", _KILLED, *on_ray, "output=killed"], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "index.json").exists()
    journal = (tmp_path / "killed" / ".preparing" / "verdicts.bin").stat().st_size
    assert journal > 0

    shown = make_shards.PhaseProgress.__call__

    def interrupt(self: Any, phase: str, done: int, total: int) -> None:
        shown(self, phase, done, total)
        if phase == "write" and done > 20:
            raise KeyboardInterrupt  # not by the signal, which a process in the background may ignore

    with monkeypatch.context() as patch:
        patch.setattr(make_shards.PhaseProgress, "__call__", interrupt)
        assert run_command(main, [*on_ray, "output=killed"]) == 130
    assert not (tmp_path / "killed" / "index.json").exists() and len(list((tmp_path / "killed").glob("*.tar"))) >= 3
    capfd.readouterr()
    assert run_command(main, [*on_ray, "output=killed"]) == 0
    output = capfd.readouterr()
    assert without_progress(output.err) == [] and output.out.count("\n") == 3
    assert digests(tmp_path / "killed") == digests(tmp_path / "local")
    assert "unreadable image" in (tmp_path / "local" / "rejected.jsonl").read_text()


@pytest.mark.slow
def test_a_cluster_of_the_user_gets_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was started without a path to this project, elsewhere."""
    pytest.importorskip("ray")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # it listens to this machine only
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    source = write_shards(tmp_path / "source", (20,))
    settings = [f"source={source}", "samples_per_shard=9"]
    main([*settings, f"output={tmp_path / 'local'}", "workers=1"])
    with _started_cluster() as address:
        on_ray = [*settings, f"output={tmp_path / 'ray'}", "engine=ray", f"ray_address={address}"]
        code = "from blip2_train.cli.make_shards import command; command()"
        made = subprocess.run(
            [sys.executable, "-c", code, *on_ray], capture_output=True, text=True, timeout=100, check=False
        )
    assert (made.returncode, without_progress(made.stderr)) == (0, []), made.stderr
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


def without_progress(printed: str) -> list[str]:
    """Lines without those that say how far it is, which a slow machine prints."""
    return [line for line in printed.splitlines() if not re.fullmatch(r"(examine|write): \d+ of \d+ samples", line)]


@contextmanager
def _started_cluster() -> Iterator[str]:
    """The address of a cluster as `ray start` makes it; nothing of it is left afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(dir="/tmp")  # its sockets need a short path
    options = [f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=1", f"--temp-dir={folder}"]
    quiet = ["--include-dashboard=false", "--disable-usage-stats"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *options, *quiet],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any("Ray runtime started" in line for line in process.stdout)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=60)
        shutil.rmtree(folder)


def test_an_unreachable_cluster_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    source = write_shards(tmp_path / "source", (2,))
    more = ["engine=ray", "ray_address=127.0.0.1:1", f"output={tmp_path / 'shards'}"]
    assert run_command(main, [f"source={source}", *more]) == 2
    output = capfd.readouterr().err
    assert output.startswith("error: ray_address=127.0.0.1:1: no server answers there") and output.count("\n") == 1
    assert run_command(main, [f"source={source}", *more[1:]]) == 2
    assert "ray_address=127.0.0.1:1 is for engine=ray; add that" in capfd.readouterr().err
