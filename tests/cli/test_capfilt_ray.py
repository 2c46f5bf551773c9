"""Captions written by workers of Ray are those of this machine's processes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from demo_exports import write_exports
from local_ray import LocalRay
from shard_files import write_shards

from blip2_train.cli.capfilt.command import main


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
def test_ray_gives_the_same_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: LocalRay) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    exports, source = write_exports(tmp_path / "exports"), write_shards(tmp_path / "source", (8, 5))
    settings = [f"source={source}", f"captioner={exports['opt']}", f"scorer={exports['stage1']}", "device=cpu"]
    settings += ["captions=3", "max_new_tokens=5", "batch_size=4", "samples_per_shard=5", "duplicates=keep"]
    main([*settings, f"output={tmp_path / 'local'}", "workers=1"])
    main([*settings, f"output={tmp_path / 'ray'}", "engine=ray", f"ray_address={local_ray.address}", "workers=2"])
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
