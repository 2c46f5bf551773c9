"""Visual question answering through the command: from two exports to answers, killed and resumed, in two processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from question_files import arguments, write_questions
from safetensors.torch import load_file
from shard_files import write_shards, write_tokenizer
from tiny_run import arguments as stage_1
from training_process import assert_same_run, losses, run_folder, samples, start

from blip2_train.checkpoints.export import read_export
from blip2_train.cli.convert_checkpoint import main as convert
from blip2_train.cli.predict.command import main as predict
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.run import train
from blip2_train.config.compose import compose
from blip2_train.errors import ConfigError
from blip2_train.pretrained import load_pretrained

TOWER = (  # of the emoji scenes: an export does not hold a frozen tower, so a random one could not be had again
    "model.vision.weights=${asset:demo/vision/model.safetensors}",
    "model.vision.overrides={patch_size: 12, embed_dim: 128, depth: 4, num_heads: 4}",
)
SHORT = ("module.generation.max_new_tokens=4", "module.generation.num_beams=2")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with questions, images, shards and a tokenizer."""
    folder = tmp_path_factory.mktemp("vqa")
    write_shards(folder / "shards", [9, 4, 13])
    write_tokenizer(folder / "tokenizer")
    write_questions(folder / "questions")
    return folder


@pytest.fixture(scope="module")
def export(workspace: Path) -> Path:
    """Export of a tiny run of all three stages."""
    outputs = workspace / "outputs"
    train(compose([*stage_1(outputs), *TOWER, "data.num_workers=0"]))
    second = ("experiment=demo_stage2_opt_instruct", "init_from=last:demo_stage1", "data.num_workers=0", *SHORT)
    train(compose([*stage_1(outputs), *TOWER, *second]))
    starts = ("init_from=last:demo_stage2_opt_instruct", "init_text_from=last:demo_stage1")
    results = train(compose([*arguments(outputs, workspace / "questions"), *TOWER, *starts]))
    assert 0 <= results["val/vqa/accuracy"] <= 100 and results["val/pictures"] == 6 and results["val/loss_lm"] > 0
    assert {"val/vqa/accuracy what color", "val/vqa/accuracy how many"} < results.keys()
    return run_folder_of(outputs) / "export"


def run_folder_of(outputs: Path) -> Path:
    (run,) = (outputs / "demo_vqa").iterdir()
    return run


@pytest.mark.slow
def test_a_run_of_two_exports(workspace: Path, export: Path) -> None:
    state, manifest = read_export(export)
    assert manifest.stage == "vqa" and manifest.architecture["question_to_qformer"] is True
    assert manifest.processor["prompt"] == "Question: {} Answer:"
    assert "embeddings.word_embeddings.weight" in state and not any("lm_head" in name for name in state)
    assert not any(name.startswith(("vision_model.", "language_model.")) for name in state)
    shown = [json.loads(line) for line in (export.parent / "captions.jsonl").read_text().splitlines()]
    assert shown and all("?" in line["caption"] for line in shown)
    begun = (workspace / "outputs").glob("demo_stage1/*/export/model.safetensors")
    before = load_file(next(begun))["embeddings.word_embeddings.weight"]
    moved = (state["embeddings.word_embeddings.weight"] - before).abs()
    assert 0 < moved.max() < 0.1  # it went on from stage 1, and it trained


def test_its_export_answers(export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, processor = load_pretrained(export)
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for _ in range(3)]
    questions = ["What color is the cat?", "how many dogs are there?", "is it a cat?"]
    answers = model.answer(images, questions, max_new_tokens=4)
    assert answers == [model.answer([p], q, max_new_tokens=4)[0] for p, q in zip(images, questions, strict=True)]
    tokens = processor.questions(["is it a cat?"])
    assert tokens.input_ids.shape[1] == int(tokens.attention_mask.sum()) > 3
    states = [model.network.query_states(processor.images(images[:1]), t) for t in (tokens, None)]  # type: ignore[operator]
    assert (states[0] - states[1]).abs().max() > 1e-3
    assert len(model.chat(images[0], [], "what is it?", max_new_tokens=4)) >= 0
    with pytest.raises(ConfigError, match="trained to answer questions"):
        model.caption(images)
    images[0].save(tmp_path / "a.png")
    arguments = ["answer", "--model", str(export), "--question", questions[0], str(tmp_path / "a.png")]
    assert run_command(predict, [*arguments, "--max-new-tokens", "4", "--device", "cpu"]) == 0
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert line["answer"] == model.answer([tmp_path / "a.png"], questions[0], max_new_tokens=4)[0]


@pytest.mark.parametrize(("target", "form"), [("hf", "huggingface"), ("x.pth", "lavis")])
def test_other_formats_cannot_hold_it(
    export: Path, tmp_path: Path, target: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(convert, [str(export), "--to", str(tmp_path / target), "--format", form]) == 2
    assert "reads questions; share the export itself" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / target).exists()


def test_a_copy_in_our_own_format_answers_alike(export: Path, tmp_path: Path) -> None:
    assert run_command(convert, [str(export), "--to", str(tmp_path / "copy")]) == 0
    image = Image.new("RGB", (24, 24), (200, 10, 10))
    texts = [
        load_pretrained(folder)[0].answer([image], "is it a cat?", max_new_tokens=4)
        for folder in (export, tmp_path / "copy")
    ]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(workspace: Path) -> None:
    runs = {name: workspace / name for name in ("whole", "killed")}
    base = {
        name: [*arguments(folder, workspace / "questions"), "model.qformer.dropout=0.1"]
        for name, folder in runs.items()
    }
    start(runs["whole"], base=base["whole"], other=True)
    start(runs["killed"], base=base["killed"], kill_at=7, code=-signal.SIGKILL)
    assert "going on from step 6" in start(runs["killed"], "resume_from=last", base=base["killed"])
    assert_same_run(runs["whole"], runs["killed"])


@pytest.mark.slow
def test_two_processes_are_one(workspace: Path) -> None:
    one, two = workspace / "one", workspace / "two"
    start(one, base=arguments(one, workspace / "questions"))
    start(two, base=arguments(two, workspace / "questions"), processes=2)
    assert {k: sorted(v) for k, v in samples(one).items()} == {k: sorted(v) for k, v in samples(two, 2).items()}
    for kind, row in losses(one).items():
        other = losses(two)[kind]
        assert row.keys() == other.keys()
        for key in row:
            assert float(other[key]) == pytest.approx(float(row[key]), rel=1e-3, abs=1e-6), (kind, key)
    assert any("vqa/accuracy" in key for row in losses(one).values() for key in row)
    weights = [load_file(run_folder(folder) / "export" / "model.safetensors") for folder in (one, two)]
    for name, tensor in weights[0].items():
        assert (weights[1][name] - tensor).abs().max() < 2e-3, name
