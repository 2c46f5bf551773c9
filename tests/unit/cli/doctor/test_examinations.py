"""What each examination of a set-up finds, in good ones and in broken ones."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from shard_files import sample, write_shards, write_tar, write_tokenizer
from tiny_run import arguments

from blip2_train.cli.doctor import speed
from blip2_train.cli.doctor.data import open_data
from blip2_train.cli.doctor.disk import examine_disk
from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Examination, Finding, attempt
from blip2_train.cli.doctor.java import examine_java
from blip2_train.cli.doctor.labels import examine_labels
from blip2_train.cli.doctor.machine import Machine, examine_devices, find_machine, host_memory
from blip2_train.cli.doctor.memory import examine_memory, part_memory
from blip2_train.cli.doctor.model import plan_model
from blip2_train.cli.doctor.options import split_options
from blip2_train.cli.doctor.shards import examine_shards
from blip2_train.cli.doctor.shared_memory import examine_shared_memory
from blip2_train.cli.doctor.speed import alone, examine_speed
from blip2_train.cli.doctor.weights import examine_weights
from blip2_train.config.compose import asset, compose
from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics import java
from blip2_train.evaluation.metrics.java import JavaError
from blip2_train.models.blip2 import Blip2Model
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.training.disk_space import checkpoint_bytes, weight_bytes
from blip2_train.training.planned_memory import FRAGMENTS, RESERVED, plan_step
from blip2_train.training.step_clock import StepClock

GIB = 2**30


def machine(**changes: object) -> Machine:
    values = {"kind": "cuda", "present": 1, "devices": 1, "nodes": 1, "memory": 80 * GIB, "sharded": False}
    return Machine(**(values | changes))  # type: ignore[arg-type]


def texts(findings: Sequence[Finding], level: str) -> str:
    """Texts of that level, a line each."""
    return "\n".join(finding.text for finding in findings if finding.level == level)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three shards and a tokenizer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards(tmp_path / "shards", [9, 4, 13])
    write_tokenizer(tmp_path / "tokenizer")
    return tmp_path


def tiny(workspace: Path, *more: str) -> DictConfig:
    return compose([*arguments(workspace / "out"), *more])


@pytest.mark.parametrize(
    ("devices", "available", "count"),
    [(8, 1, 8), ("auto", 4, 4), ("auto", 0, 1), (-1, 2, 2), ("0,1", 1, 2), ([3], 4, 1)],
)
def test_devices_are_counted(devices: object, available: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
    trainer = {"accelerator": "cuda", "devices": devices, "num_nodes": 2, "strategy": "ddp"}
    there = find_machine(OmegaConf.create(trainer), device_memory=40)
    assert (there.devices, there.processes, there.memory, there.sharded) == (count, 2 * count, 40 * GIB, False)


def test_devices_that_are_not_here_and_a_batch_that_cannot_be_cut(workspace: Path) -> None:
    config = tiny(workspace, "trainer=fsdp", "trainer.devices=3")
    there = find_machine(config.trainer, None) if not torch.cuda.is_available() else machine(present=0, devices=3)
    findings = examine_devices(config, there)
    assert "trainer.devices=3, but this machine has no cuda device" in texts(findings, WARNING)
    assert "global_batch_size 4 cannot be divided among 3 processes" in texts(findings, PROBLEM)
    assert find_machine(config.trainer, 1.0).sharded


def test_every_missing_source_is_named(workspace: Path) -> None:
    given = [setting for setting in arguments(workspace / "out") if not setting.startswith("data.source=")]
    opened, findings = open_data(compose([*given, "data=web_129m", f"paths.data_dir={workspace / 'absent'}"]))
    assert opened.module is None and opened.collator is not None
    problems = texts(findings, PROBLEM).splitlines()
    assert len(problems) == 6
    assert all(f"absent/{name}" in line for name, line in zip(("coco", "visual_genome", "sbu"), problems, strict=False))


def test_images_that_cannot_be_read(workspace: Path) -> None:
    broken = [member for n in range(9) for member in ((f"{n}.jpg", b"no image"), (f"{n}.txt", "a cat"))]
    write_tar(workspace / "shards" / "00003.tar", broken)
    _, findings = open_data(tiny(workspace))
    assert "9 of 35 samples looked at cannot be used" in texts(findings, PROBLEM)
    tolerant = tiny(workspace, "data.max_rejected_share=0.5")
    opened, findings = open_data(tolerant)
    assert opened.module is not None and texts(findings, PROBLEM) == ""
    assert texts(findings, WARNING).count("unreadable image") == 9


def test_a_tokenizer_that_is_missing_hides_no_other_problem(workspace: Path) -> None:
    shutil.rmtree(workspace / "tokenizer")
    opened, findings = open_data(tiny(workspace, f"data.source={workspace / 'absent'}"))
    assert opened.module is None
    first, second = texts(findings, PROBLEM).splitlines()
    assert "tokenizer" in first and "absent" in second


def test_shards_beside_processes_and_readers(workspace: Path) -> None:
    config = tiny(workspace, "data.num_workers=2")
    module = open_data(config)[0].module
    assert "shards: 3 shards for 1 processes x 2 readers = 2" in texts(examine_shards(config, module, machine()), OK)
    held_out = "validation: 2 samples for 1 processes, held out of the training data, which keeps 24"
    assert held_out in texts(examine_shards(config, module, machine()), OK), "of its 26"
    many = machine(devices=2)
    assert "shards has 3 shards for 2 processes x 2 readers = 4" in texts(examine_shards(config, module, many), WARNING)
    too_many = machine(devices=4, nodes=2)
    assert "2 validation samples cannot be shared by 8 processes" in texts(
        examine_shards(config, module, too_many), PROBLEM
    )
    none = tiny(workspace, "data.holdout=0")
    shard_findings = examine_shards(none, open_data(none)[0].module, machine())
    assert "nothing to validate on: give data.validation, or data.holdout and at least 10" in texts(
        shard_findings, PROBLEM
    )
    assert examine_shards(config, None, machine())[0].level == SKIPPED


def test_batches_that_wait_beside_shared_memory(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(workspace, "data.num_workers=3")
    module = open_data(config)[0].module
    usage = namedtuple("usage", ["free"])
    assert module is not None
    sample = 3 * 24 * 24
    waiting = 2 * 3 * 2 * 2 * sample  # 2 processes x 3 readers x 2 batches x 2 samples
    for free, level in ((2 * waiting, OK), (waiting, WARNING), (waiting - 1, PROBLEM)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(free))
        (finding,) = examine_shared_memory(config, module, machine(devices=2))
        assert finding.level == level and "2 processes x 3 readers x 2 batches take up to" in finding.text, finding
    assert "--shm-size" in finding.text
    assert examine_shared_memory(config, None, machine())[0].level == SKIPPED
    assert "divided" in examine_shared_memory(config, module, machine(devices=3))[0].text
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    assert "no /dev/shm" in examine_shared_memory(config, module, machine(devices=2))[0].text
    assert "not used" in examine_shared_memory(tiny(workspace, "data.num_workers=0"), module, machine())[0].text


def test_labels_are_shown_and_missed(workspace: Path) -> None:
    stage_2 = ["experiment=demo_caption_opt", "init_from=null", "max_text_length=20", "collator.prompt=a photo of"]
    module = open_data(tiny(workspace, *stage_2))[0].module
    assert module is not None
    findings = examine_labels(module)
    labels = [line for line in texts(findings, OK).splitlines() if line.startswith("  label")]
    assert len(labels) == 2 and all("cat" in line and "photo of" not in line for line in labels)
    assert {finding.level for finding in findings} == {OK}
    batch = next(iter(module.train_dataloader()))
    batch.labels[1] = -100
    module.train_dataloader = lambda: [batch]  # type: ignore[method-assign, assignment, return-value]
    assert f"sample {batch.sample_ids[1]} has no label" in texts(examine_labels(module), PROBLEM)


def test_a_tokenizer_of_another_language(workspace: Path) -> None:
    write_tar(workspace / "shards" / "00000.tar", [m for n in range(9) for m in sample(f"{n}", "кот на крыше дома")])
    (workspace / "shards" / "00001.tar").unlink()
    (workspace / "shards" / "00002.tar").unlink()
    warnings = texts(open_data(tiny(workspace, "steps=700"))[1], WARNING)
    assert "shards (training): 100.0 % of 36 tokens are unknown to the tokenizer, the first in 'кот" in warnings
    assert "shards: 700 steps of 4 are 311 epochs of its 9 samples" in warnings


@pytest.mark.slow
def test_every_weight_of_a_demo_fits() -> None:
    """Tower, language model and BERT, all that ship with the package."""
    config = compose(["experiment=demo_stage2_opt", "init_from=null", f"model.qformer.weights={asset('demo/bert')}"])
    findings = examine_weights(config)
    assert [finding.level for finding in findings] == [OK, OK, OK], findings
    assert "vision weights" in findings[0].text and "language model" in findings[1].text and "BERT" in findings[2].text
    findings = examine_weights(compose(["experiment=demo_stage1_bert"]))
    assert [finding.level for finding in findings] == [OK, OK], findings


def test_every_file_of_weights_that_does_not_fit_is_named(workspace: Path) -> None:
    torch.save({"pos_embed": torch.ones(1, 5, 16)}, workspace / "tower.pt")
    tower = f"model.vision.weights={workspace / 'tower.pt'}"
    config = tiny(workspace, tower, "model.qformer.weights=/absent/bert", "resume_from=last")
    first, second, third = texts(examine_weights(config), PROBLEM).splitlines()
    assert "tower.pt" in first and "lacks" in first
    assert "/absent/bert" in second
    assert "no run under" in third
    findings = examine_weights(tiny(workspace, "model.vision.weights=/absent/tower.pt", "init_from=last:demo_vqa"))
    assert "has an export" in texts(findings, PROBLEM) and "no weight file /absent/tower.pt" in texts(findings, PROBLEM)


def test_weights_of_another_shape() -> None:
    wide = {"model": {"vision": {"overrides": {"embed_dim": 64}}, "qformer": {"intermediate_size": 256}}}
    findings = examine_weights(OmegaConf.merge(compose(["experiment=demo_stage1_bert"]), wide))
    first, second = texts(findings, PROBLEM).splitlines()
    assert "the model needs" in first and "vision" in first
    assert "intermediate_size is 256, the checkpoint has 512" in second and "BERT" in second


def test_how_long_matching_stays_at_chance_is_named_where_it_starts_there() -> None:
    for settings, shown in (
        (["experiment=demo_stage1"], True),
        (["experiment=demo_retrieval"], False),  # continues
        (["experiment=demo_stage1", "objective.itm_weight=0"], False),
    ):
        assert ("ITM stays near 0.6365" in texts(plan_model(compose(settings), None)[1], OK)) == shown


@pytest.mark.slow
def test_a_model_that_its_data_do_not_fit(workspace: Path) -> None:
    config = tiny(workspace, "experiment=demo_stage2_opt", "init_from=null", "module.prompt=" + "long " * 400)
    collator = open_data(config)[0].collator
    model, findings = plan_model(config, collator)
    assert model is not None and "reads at most" in texts(findings, PROBLEM)
    model, findings = plan_model(tiny(workspace, "model.vision.name=vit_none"), None)
    assert model is None and "vit_none" in texts(findings, PROBLEM)


@pytest.mark.slow
def test_memory_beside_the_device() -> None:
    small = ["model.qformer.weights=random", "model.qformer.num_layers=1", "model.vision.overrides.depth=2"]
    config = compose(["experiment=demo_stage1", *small, "model.vision.weights=random"])
    model, _ = plan_model(config, None)
    assert model is not None
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    needed = 4 * (sum(p.numel() for p in model.parameters()) + 3 * trained)
    assert sum(part.weights + part.training for part in part_memory(model, machine())) == needed
    counted: Any = cache(partial(plan_step, model, RepresentationObjective(), precision="32-true"))
    planner = lambda length, on_gpu: counted(max_text_length=length, on_gpu=on_gpu)  # noqa: E731  (each takes a second)
    step = planner(config.max_text_length, True).most(config.global_batch_size)
    levels = {
        needed + 1.01 * step: OK,
        needed + 0.99 * step: WARNING,
        needed + step / 10: PROBLEM,
        0.9 * needed: PROBLEM,
    }
    for size, level in levels.items():
        there = machine(memory=int((size + RESERVED) / (1 - FRAGMENTS)) if size > needed else int(size))
        first, *others = examine_memory(config, model, there, planner)
        assert first.level == level, (size, first)
        if level == OK:
            assert f"micro-batch of {config.global_batch_size}" in first.text
            assert "largest micro-batch: " in texts(others, OK)
    two = examine_memory(config, model, machine(kind="cpu", devices=2, memory=int(1.5 * needed)), planner)
    assert two[0].level == PROBLEM, "both processes share the memory of the machine"
    assert "device_memory=" in examine_memory(config, model, machine(memory=None))[0].text
    parts = part_memory(model, machine(devices=2))
    assert sum(part.weights + part.training for part in parts) == needed, "gradients lie in the buffers of the exchange"


@pytest.fixture
def sharded_run() -> tuple[DictConfig, Blip2Model]:
    settings = ["global_batch_size=8", "trainer.devices=8"]
    config = compose(["experiment=stage2_vit_g_flan_t5_xxl", "trainer=fsdp", "init_from=null", *settings])
    model, _ = plan_model(config, None)
    assert model is not None
    return config, model


@pytest.mark.slow
def test_a_sharded_model_takes_less(sharded_run: tuple[DictConfig, Blip2Model]) -> None:
    config, model = sharded_run
    whole = {part.name: part.weights for part in part_memory(model, machine())}
    sharded = {part.name: part.weights for part in part_memory(model, machine(devices=8, sharded=True))}
    assert sharded["vision_model"] == whole["vision_model"], "a frozen tower stays whole"
    assert whole["language_model"] / 8 < sharded["language_model"] < whole["language_model"] / 6
    assert texts(examine_memory(config, model, machine(memory=16 * GIB)), PROBLEM)


@pytest.mark.slow
def test_a_sharded_model_fits_where_it_does_not_as_a_whole(sharded_run: tuple[DictConfig, Blip2Model]) -> None:
    there = machine(memory=16 * GIB, devices=8, sharded=True)
    assert not texts(examine_memory(*sharded_run, there), PROBLEM)


@pytest.mark.slow
def test_memory_of_a_step_that_is_contrasted_as_a_whole_from_stored_features(tmp_path: Path) -> None:
    small = ["model.qformer.weights=random", "model.qformer.num_layers=1", "image_size=24", "accumulate=4"]
    settings = ["experiment=demo_stage1", *small, "objective.contrast=batch", f"data.features={tmp_path}"]
    config = compose(settings)
    model, _ = plan_model(config, None)
    assert model is not None
    assert "vision_model" not in {part.name for part in part_memory(model, machine())}
    lines = texts(examine_memory(config, model, machine(devices=2)), OK)
    assert "7.3 KiB for each of the 32 samples of a step in a process, which are contrasted together" in lines


Usage = namedtuple("Usage", "total used free")


def test_checkpoints_beside_the_free_space(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(workspace, "monitor=val/recall_mean", "callbacks.checkpoint.keep=2")
    model, _ = plan_model(config, None)
    assert model is not None
    needed = 4 * checkpoint_bytes(model) + weight_bytes(model)  # two newest, the best, one being written; an export
    for free, level in ((2 * needed, OK), (1.1 * needed, WARNING), (0.9 * needed, PROBLEM)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(0, 0, free))
        (finding,) = examine_disk(config, model)
        assert finding.level == level and "2 newest, 1 best" in finding.text
    assert not (workspace / "out").exists()
    (workspace / "out").write_text("a file in the way")
    (finding,) = examine_disk(config, model)
    assert finding.level == PROBLEM and "cannot be written to" in finding.text


@pytest.mark.slow
def test_java_where_captions_are_scored(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["experiment=demo_caption_opt", "init_from=null", "validate_every=9", "monitor=val/cider"]
    assert "starts" in texts(examine_java(tiny(workspace, *captions)), OK)

    def no_java() -> str:
        raise JavaError("there is no Java")

    monkeypatch.setattr(java, "find_java", no_java)
    assert "monitor=val/cider stops the run" in texts(examine_java(tiny(workspace, *captions)), PROBLEM)
    assert "no CIDEr" in texts(examine_java(tiny(workspace, *captions, "monitor=null")), WARNING)
    for unneeded in ([*captions, "monitor=null", "validate_every=null"], []):
        assert "not needed" in texts(examine_java(tiny(workspace, *unneeded)), OK)


def test_what_is_measured_is_one_process_of_the_run(workspace: Path) -> None:
    config = tiny(workspace, "trainer=fsdp_cpu", "trainer.devices=2", "accumulate=2")
    one = alone(config, machine(kind="cpu", devices=2), 5, workspace / "elsewhere")
    assert one.trainer.max_steps == 5 and one.trainer.devices == 1 and one.trainer.strategy == "auto"
    assert one.global_batch_size == one.data.global_batch_size == 2 and one.data.accumulate == 2
    assert str(workspace / "out") not in OmegaConf.to_yaml(OmegaConf.masked_copy(one, ["data", "trainer", "logger"]))
    assert config.trainer.devices == 2, "the run's own settings stay"
    assert examine_speed(config, machine(), 0, print)[0].level == SKIPPED
    assert "no cuda device" in examine_speed(config, machine(present=0), 5, print)[0].text


def test_no_step_of_a_large_model_is_trained_on_a_cpu_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "_measure", lambda config, machine, steps: [Finding(OK, f"{steps} steps")])
    large = compose(["experiment=stage1_vit_g", "data=shards", "data.source=x"])
    found = examine_speed(large, machine(kind="cpu"), None, print)
    assert found[0].level == SKIPPED and "a model of 1.2 billion parameters takes minutes or hours" in found[0].text
    assert capsys.readouterr().out == ""
    for config, kind, steps, expected in ((large, "cpu", 2, 2), (large, "cuda", None, 20)):
        assert texts(examine_speed(config, machine(kind=kind), steps, print), OK) == f"{expected} steps"
        assert f"training up to {expected} steps, until the first that ends after 10 s" in capsys.readouterr().out


def test_the_clock_leaves_out_the_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock, module = StepClock(), SimpleNamespace(device=torch.device("cpu"))
    trainer = SimpleNamespace(global_step=0)
    clock.on_train_start(trainer, module)  # type: ignore[arg-type]
    for micro_batch in range(10):  # two to a step: half a second of waiting, half a second of work, the first slow
        now[0] += 0.5
        clock.on_train_batch_start(trainer, module, None, micro_batch)  # type: ignore[arg-type]
        now[0] += 0.5 if micro_batch > 1 else 30.0
        trainer.global_step += micro_batch % 2
        clock.on_train_batch_end(trainer, module, None, None, micro_batch)  # type: ignore[arg-type]
    assert clock.seconds_per_step() == pytest.approx(2.0)
    assert clock.share_waiting() == pytest.approx(0.5)
    assert StepClock().seconds_per_step() is None and StepClock().share_waiting() == 0.0


def test_mistakes_of_ours_are_problems_too(monkeypatch: pytest.MonkeyPatch) -> None:
    findings: list[Finding] = []
    assert attempt(findings, lambda: 1 / 0) is None
    assert "ZeroDivisionError" in texts(findings, PROBLEM) and "BLIP2_TRACEBACK=1" in texts(findings, PROBLEM)
    assert Examination("x", [Finding(OK, ""), *findings]).level == PROBLEM and Examination("x", []).level == OK
    monkeypatch.setenv("BLIP2_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        attempt(findings, lambda: 1 / 0)


def test_the_memory_of_this_machine_is_read() -> None:
    assert 2**28 < host_memory() < 2**45


@pytest.mark.parametrize("wrong", ["measure=many", "measure=-1", "device_memory=much", "device_memory=0"])
def test_options_that_make_no_sense(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.split("=")[0]):
        split_options([wrong])
