"""Features stored by workers of Ray are those of this machine's processes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from feature_files import write_noise_shards
from local_ray import LocalRay
from shard_files import write_tokenizer

from blip2_train.cli.features import storing
from blip2_train.cli.features.command import main


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
def test_ray_stores_the_same_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: LocalRay) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(storing, "cores", lambda: 1)
    shards, tokenizer = write_noise_shards(tmp_path / "shards", (8, 5)), write_tokenizer(tmp_path / "tokenizer")
    settings = ["experiment=demo_stage1", "data=shards", f"data.source={shards}", f"tokenizer={tokenizer}"]
    settings += ["image_size=24", "data.holdout=1", "model.qformer.weights=random", "crops=2", "images_per_shard=4"]
    settings += ["device=cpu", "batch_size=3", f"paths.output_dir={tmp_path / 'out'}"]
    main([*settings, f"output={tmp_path / 'local'}", "workers=1"])
    main([*settings, f"output={tmp_path / 'ray'}", "engine=ray", f"ray_address={local_ray.address}", "workers=2"])
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
