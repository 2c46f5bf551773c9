"""A model sharded among two processes trains, generates and is stored as a whole one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_processes
from safetensors.torch import load_file
from sharding_work import CASES, GENERATING, IN_16_BITS, RESUMED, STEPS, make_model, run, work
from torch import Tensor
from training_process import start

from blip2_train.errors import ConfigError
from blip2_train.training.sharding import blocks_to_shard

WORLD = {"train": 200, "val": 50, "test": 0, "nocaps": 0}
EXACT = [case for case in CASES if case not in IN_16_BITS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where one process and two write their checkpoints."""
    return {name: tmp_path_factory.mktemp(name) for name in ("one", "two")}


@pytest.fixture(scope="module")
def one(folders: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Each case in one process, with the whole batch."""
    torch.set_num_threads(1)
    return {case: run(case, folders["one"]) for case in EXACT}


@pytest.fixture(scope="module")
def two(folders: dict[str, Path], one: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Everything that is asked of each of two processes."""
    folder, written = folders["two"], folders["one"] / f"{RESUMED}.ckpt"
    return run_processes((2,), work, tmp_path_factory.mktemp("processes"), folder, written)[2]


def distance(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference between equally named tensors."""
    assert actual.keys() == expected.keys()
    return max(float((actual[name] - tensor).abs().max()) for name, tensor in expected.items())


def relative_distance(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm of all differences, relative to that of what is expected."""
    assert actual.keys() == expected.keys()
    differences = torch.cat([(actual[name] - tensor).flatten() for name, tensor in expected.items()])
    return float(differences.norm() / torch.cat([tensor.flatten() for tensor in expected.values()]).norm())


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_training_equals_that_of_one_process(one: Any, two: Any, case: str) -> None:
    expected = one[case]
    for actual in (of_rank["runs"][case] for of_rank in two):
        assert actual["losses"] == pytest.approx(expected["losses"], rel=1e-9)
        assert actual["scores"] == pytest.approx(expected["scores"], rel=1e-9)
        assert actual["rates"] == expected["rates"]
        assert actual["moved"] == expected["moved"] == [], "a frozen tensor has changed"
    actual = two[0]["runs"][case]
    assert relative_distance(actual["gradients"], expected["gradients"]) < 1e-9
    assert distance(actual["weights"], expected["weights"]) < 1e-9  # a step moves them by up to 1e-3
    assert actual["sharded"] and not expected["sharded"]
    if "vision" in CASES[case]:
        assert len(set(expected["rates"])) > 1, "no rate by layer"
        norm = torch.cat([gradient.flatten() for gradient in actual["gradients"].values()]).norm()
        assert float(norm) == pytest.approx(CASES[case]["optim"]["clip_norm"], rel=1e-4)


@pytest.mark.parametrize("case", IN_16_BITS)
def test_a_16_bit_language_model_trains_as_without_dividing(two: Any, case: str) -> None:
    """Against two unsharded processes; sums in another order are rounded otherwise."""
    actual, expected = two[0]["runs"][case], two[0]["unsharded"][case]
    assert actual["losses"][0] == expected["losses"][0]
    assert actual["losses"] == pytest.approx(expected["losses"], rel=5e-3)
    assert relative_distance(actual["gradients"], expected["gradients"]) < 0.02
    assert actual["moved"] == []


@pytest.mark.parametrize("case", CASES)
def test_each_process_holds_half_of_the_blocks(two: Any, case: str) -> None:
    for of_rank in two:
        whole, held = of_rank["runs"][case]["block_bytes"]
        assert held == whole / 2


def test_memory_is_sharded(two: Any) -> None:
    """All tensors of a process are counted. While a block runs, it and at most two others are whole."""
    for memory in (of_rank["memory"] for of_rank in two):
        blocks, rest = memory["blocks"], memory["whole"] - memory["blocks"]
        assert rest < 0.05 * blocks
        assert memory["after"] < 0.5 * blocks + 3 * rest
        assert memory["inside"] < (0.5 + 3 / 8) * blocks + 3 * rest


@pytest.mark.parametrize("written_by", ["sharded", "whole"])
def test_a_checkpoint_resumes_sharded(one: Any, two: Any, written_by: str) -> None:
    actual, expected = two[0]["resumed"][written_by], one[RESUMED]
    assert actual["losses"] == pytest.approx(expected["losses"][-len(actual["losses"]) :], rel=1e-9)
    assert 0 < len(actual["losses"]) < STEPS
    assert distance(actual["weights"], expected["weights"]) < 1e-9


def test_a_checkpoint_of_a_sharded_run_resumes_whole(one: Any, two: Any, folders: dict[str, Path]) -> None:
    actual, expected = run(RESUMED, folders["one"], folders["two"] / f"{RESUMED}.ckpt"), one[RESUMED]
    assert actual["losses"] == pytest.approx(expected["losses"][-len(actual["losses"]) :], rel=1e-9)
    assert distance(actual["weights"], expected["weights"]) < 1e-9


def test_checkpoints_are_alike(one: Any, two: Any, folders: dict[str, Path]) -> None:
    a, b = (torch.load(folders[name] / f"{RESUMED}.ckpt", weights_only=True) for name in ("one", "two"))
    assert a.keys() == b.keys()
    assert a["blip2_train"] | {"saved_at": 0.0} == b["blip2_train"] | {"saved_at": 0.0}
    assert list(a["state_dict"]) == list(b["state_dict"])
    assert distance(b["state_dict"], a["state_dict"]) < 1e-9
    (a,), (b,) = a["optimizer_states"], b["optimizer_states"]
    assert a["param_groups"] == b["param_groups"]
    assert list(a["state"]) == list(b["state"])
    assert all(distance(b["state"][index], a["state"][index]) < 1e-9 for index in a["state"])


@pytest.mark.parametrize("case", GENERATING)
def test_generating_together_equals_generating_alone(two: Any, case: str) -> None:
    lengths = []
    for of_rank in two:
        alone, together = (of_rank["generations"][case][how] for how in ("alone", "together"))
        assert [ids.tolist() for ids in together] == [ids.tolist() for ids in alone]
        lengths.append([ids.shape[1] for ids in alone])
    assert all(first < second for first, second in zip(*lengths, strict=True)), "both ended at once"


def test_refusals(two: Any) -> None:
    for of_rank in two:
        assert "process 1 starts from other weights than process 0" in of_rank["refusals"]["weights"]
        assert "the processes have 1, 2 validation batches" in of_rank["refusals"]["batches"]


@pytest.mark.parametrize(("case", "language", "tower"), [("opt", 2, 0), ("t5 in bfloat16 with tower", 4, 2)])
def test_the_blocks(case: str, language: int, tower: int) -> None:
    kinds = [type(block).__name__ for block in blocks_to_shard(make_model(case))]
    assert kinds == [kinds[0]] * language + ["Block"] * tower
    assert kinds[0] in ("OPTDecoderLayer", "T5Block")


def test_what_cannot_be_sharded_is_named() -> None:
    model = make_model("opt")
    model.language_config = dataclasses.replace(model.language_config, quantization="int8")
    with pytest.raises(ConfigError, match="cannot shard a language model in int8"):
        blocks_to_shard(model)
    model = make_model("opt")
    model.language_model._no_split_modules = set()
    with pytest.raises(ConfigError, match="no blocks in language model 'opt'"):
        blocks_to_shard(model)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command(tmp_path: Path) -> None:
    """A run of one process is taken up in its middle by two that shard the model, and ends alike."""
    world = "".join(f"data.prepare.{split}_scenes={count} " for split, count in WORLD.items())
    small = (
        "experiment=demo_stage2_opt steps=4 global_batch_size=16 validate_every=3 checkpoint_every=2 log_every=1 "
        "optim.warmup_steps=1 data.num_workers=0 data.validation_samples=25 "
        f"{world}data.eval_batch_size=16 init_from=null trainer=cpu paths.data_dir={tmp_path / 'data'}"
    ).split()
    one, two = (tmp_path / name for name in ("one", "two"))
    start(one, "callbacks.checkpoint.keep=2", f"paths.run_dir={one}", base=small, other=True)
    later = ("export", "results.json", "step_0000004.ckpt")
    shutil.copytree(one, two, ignore=shutil.ignore_patterns(*later))
    sharded = ("verbose=true", "trainer=fsdp_cpu", f"resume_from={two}", f"paths.run_dir={two}")
    printed = start(two, *sharded, base=small, processes=2)
    assert "going on from step 2" in printed and "2 processes" in printed
    weights = [load_file(folder / "export" / "model.safetensors") for folder in (one, two)]
    # Softmax does not see a bias of keys: its gradient is rounding, which AdamW makes as large as any other.
    seen = [{n: t for n, t in of_run.items() if not n.endswith("key.bias")} for of_run in weights]
    assert weights[0].keys() == weights[1].keys()
    assert distance(seen[1], seen[0]) < 1e-5
    manifests = [json.loads((folder / "export" / "manifest.json").read_text()) for folder in (one, two)]
    for key in ("step", "frozen_fingerprint", "parent"):
        assert manifests[0][key] == manifests[1][key]
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    compared = [key for key in results[0] if key.startswith(("train/", "val/")) or key == "trainable_parameters"]
    assert {key: results[1][key] for key in compared} == pytest.approx(
        {key: results[0][key] for key in compared}, rel=1e-4
    )
    captions = [(folder / "captions.jsonl").read_text().splitlines() for folder in (one, two)]
    assert len(captions[0]) == 16
