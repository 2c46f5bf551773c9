"""The benchmark's command line: options, table and JSON, without looking at a time."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from benchmark.command import main
from benchmark.options import split_options
from benchmark.plans import TOWER_PLANS
from benchmark.stages import stage_of

from blip2_train.cli.terminal import run_command
from blip2_train.config.compose import compose
from blip2_train.errors import ConfigError

RECIPE = "experiment=demo_stage1"


@pytest.mark.slow
def test_json_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figures.json"
    main([RECIPE, "device=cpu", "batch_size=2", "steps=1", "plans=released,shared,tower", f"json={target}"])
    record = json.loads(target.read_text(encoding="utf-8"))
    released, shared, tower = (record["plans"][name] for name in ("released", "shared", "tower"))
    parts = ["data", "vision", "itc", "itm", "itg", "backward", "optimiser"]
    assert list(released["part_seconds"]) == list(shared["part_seconds"]) == parts
    assert list(tower["part_seconds"]) == parts[:2]
    for plan in (released, shared, tower):
        assert plan["step_seconds"] == pytest.approx(sum(plan["part_seconds"].values()))
        assert plan["samples_per_second"] == pytest.approx(2 / plan["step_seconds"])
        assert plan["share_of_ceiling"] == pytest.approx(plan["flops_per_second"] / record["ceiling_flops_per_second"])
    assert released["part_flops"]["vision"] == shared["part_flops"]["vision"] > 0
    assert shared["flops_per_step"] < released["flops_per_step"]
    assert shared["peak_bytes"] < released["peak_bytes"]
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("released", "shared", "ceiling", "kept for backward"))


@pytest.mark.parametrize("family", ["opt", "t5"])
@pytest.mark.slow
def test_stage_2(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figures.json"
    sizes = ["device=cpu", "batch_size=2", "steps=2", "new_tokens=3", "beams=2"]
    main([f"experiment=demo_stage2_{family}", *sizes, f"json={target}"])
    record = json.loads(target.read_text(encoding="utf-8"))
    plans = record["plans"]
    assert list(plans) == ["huggingface", "all_positions", "labelled"]
    for plan in plans.values():
        parts = ["data", "vision", "qformer", "language_model", "head", "backward", "optimiser"]
        assert list(plan["part_seconds"]) == parts
        assert plan["compared_with"] == "huggingface"
        assert plan["text_tokens_per_second"] * plan["step_seconds"] == pytest.approx(plan["amounts"]["text_tokens"])
        assert plan["amounts"]["samples"] == 2
        assert plan["amounts"] == plans["huggingface"]["amounts"]  # the same batches
        assert plan["alive_bytes"] > plan["peak_bytes"] > 0
    flops = [plan["flops_per_step"] for plan in plans.values()]
    assert flops == sorted(flops, reverse=True)
    assert len(record["agreement"]) == 4
    written = record["generation"]["plans"]
    searches = ("greedy", "2 beams")
    assert list(written) == [f"{who} {search}" for search in searches for who in ("huggingface", "blip2_train")]
    for name, plan in written.items():
        assert list(plan["part_seconds"]) == ["data", "vision", "qformer", "prompt", "tokens"]
        assert plan["amounts"] == {"images": 2, "new_tokens": 6}
        assert plan["compared_with"].split()[1:] == name.split()[1:]
    assert written["blip2_train 2 beams"]["flops_per_step"] <= 1.001 * written["huggingface 2 beams"]["flops_per_step"]
    printed = capsys.readouterr().out
    assert printed.count("the plans agree") == 4
    assert all(word in printed for word in ("text", "new", "images", "labelled", "greedy", "2 beams"))


@pytest.mark.slow
def test_several_precisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figures.json"
    options = ["batch_size=2", "steps=1", "plans=labelled", "generate=false", "vision=false", "precision=32,bf16"]
    main(["experiment=demo_stage2_opt", "device=cpu", *options, f"json={target}"])
    records = json.loads(target.read_text(encoding="utf-8"))
    assert [record["precision"] for record in records] == ["32", "bf16"]
    assert all("generation" not in record for record in records)
    assert "generation" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("plans=huggingface", "no plan 'huggingface' for this recipe"),
        ("beams=1", "greedy"),
        ("new_tokens=0", "at least 1"),
        ("generate=maybe", "true or false"),
        ("precision=32,8", "precision=8"),
        ("plans=shared,fastest", "no plan 'fastest'"),
        ("batch_size=many", "a whole number"),
        ("batch_size=1", "no negatives"),
        ("steps=0", "at least 1"),
        ("vision=perhaps", "true or false"),
        ("device=tpu", "cpu or cuda"),
        ("precision=8", "32 or bf16"),
        ("tokens=20-10", "fewest and the most"),
        ("tokens=10-40", "max_text_length is 32"),
        ("json=/no/such/folder/x.json", "no folder"),
        ("no_such_key=1", "no_such_key"),
    ],
)
def test_wrong_options_end_in_one_line(argument: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    defaults = {"batch_size": "2", "device": "cpu", "plans": "shared", "steps": "1"}
    name, value = argument.split("=")
    arguments = [RECIPE, *(f"{key}={text}" for key, text in (defaults | {name: value}).items())]
    assert run_command(main, arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert reason in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "reason"), [("model.language.quantization=int8", "leave it out"), ("peft=lora", "leave out peft=lora")]
)
def test_what_transformers_has_no_form_of_is_not_measured(
    setting: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, ["experiment=demo_stage2_opt", "device=cpu", "plans=labelled", setting]) == 2
    assert reason in capsys.readouterr().err


def test_the_tower_cannot_be_timed_without_it() -> None:
    options, rest = split_options([RECIPE, "device=cpu", "vision=false", "optim.lr=1e-4"])
    assert set(stage_of(compose(rest)).plan_names(options)).isdisjoint(TOWER_PLANS)
    assert rest == [RECIPE, "optim.lr=1e-4"]
    assert run_command(main, [RECIPE, "device=cpu", "vision=false", "plans=tower"]) == 2


@pytest.mark.slow
def test_error_of_the_tower_in_8_bits(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchao")
    main([RECIPE, "device=cpu", "batch_size=2", "steps=1", "plans=tower,tower_8_bits"])
    (tower, quantized) = re.findall(
        r"features against float32, 2 images: tower (\S+)%, tower_8_bits (\S+)%",
        " ".join(capsys.readouterr().out.split()),
    )[0]
    assert float(tower) < 0.01 < float(quantized) < 3


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed")
def test_a_tower_in_8_bits_needs_torchao() -> None:
    with pytest.raises(ConfigError, match=r"plan tower_8_bits needs torchao.*or leave the plan out"):
        main([RECIPE, "device=cpu", "batch_size=2", "steps=1", "plans=tower_8_bits"])
