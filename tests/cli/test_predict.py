"""The command that uses a trained model: lines of JSON as they come, features in a file, one line for a mistake."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from blip2_train.cli.predict.command import command, main
from blip2_train.cli.predict.images import ImageList, read_batches
from blip2_train.cli.terminal import run_command
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.data.sources.image_stream import StreamedImage
from blip2_train.errors import ConfigError
from blip2_train.pretrained import load_pretrained

ASSETS = Path(__file__).parents[2] / "blip2_train/assets/demo"
TOWER = {"patch_size": 12, "embed_dim": 128, "depth": 4, "num_heads": 4}
SHORT = ["--max-new-tokens", "6"]


GOOD = ["a.png", "b.JPG", "d.webp", "below/e.png"]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_captions_come_as_lines_of_json_and_a_broken_image_stops_nothing(
    exports: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["caption", "--model", exports["opt"], "--batch-size", "2", *SHORT, str(folder)]
    assert run_command(main, arguments) == 2
    out, err = capsys.readouterr()
    records = lines(out)
    assert [line["image"] for line in records] == [
        str(folder / name) for name in ("a.png", "b.JPG", "c.jpg", "d.webp", "below/e.png")
    ]
    assert [set(line) - {"image"} for line in records] == [
        {"caption"},
        {"caption"},
        {"error"},
        {"caption"},
        {"caption"},
    ]
    assert "not a JPEG" in records[2]["error"]
    *_, end, passed_over, error = err.splitlines()
    assert end.startswith("4 images in")
    assert passed_over == "2 passed over: 1 hidden file, 1 .txt file (._a.png, notes.txt)"
    assert error.startswith("error: 1 of 5 images could not be read, the other 4 are done; the first: ")
    model, _ = load_pretrained(exports["opt"])
    alone = [model.caption(folder / name, max_new_tokens=6)[0] for name in GOOD]
    assert [line["caption"] for line in records if "caption" in line] == alone


def test_captions_of_a_stage_1_model(exports: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its Q-Former, as `Blip2Qformer.generate` of the released code."""
    (folder / "c.jpg").unlink()
    main(["caption", "--model", exports["stage1"], "--max-new-tokens", "8", "--batch-size", "3", str(folder)])
    records = lines(capsys.readouterr().out)
    model, _ = load_pretrained(exports["stage1"])
    assert [line["caption"] for line in records] == model.caption([folder / name for name in GOOD], max_new_tokens=8)
    assert all(line["caption"] for line in records)
    drawing = ["caption", "--model", exports["stage1"], "--sample", "--prompt", "a photo of", "--max-new-tokens", "8"]
    main([*drawing, str(folder)])
    assert len({line["caption"] for line in lines(capsys.readouterr().out)}) > 1


def test_the_newest_export_of_a_recipe(
    exports: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "outputs/demo_stage2_opt/today").mkdir(parents=True)
    (folder / "outputs/demo_stage2_opt/today/export").symlink_to(exports["opt"])
    monkeypatch.chdir(folder)
    main(["caption", "--model", "last:demo_stage2_opt", *SHORT, "a.png"])
    assert "model: outputs/demo_stage2_opt/today/export " in capsys.readouterr().err
    assert load_pretrained("last:demo_stage2_opt")[0].source.startswith("outputs/demo_stage2_opt/today/export ")


def test_output_goes_to_a_file_that_is_never_replaced_by_default(
    exports: dict[str, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new/captions.jsonl"
    arguments = ["caption", "--model", exports["t5"], *SHORT, "--output", str(output), str(folder / "a.png")]
    main(arguments)
    before = output.read_text()
    assert len(lines(before)) == 1 and capsys.readouterr().out == ""
    with pytest.raises(ConfigError, match=r"captions\.jsonl is there already; name another file, or pass --overwrite"):
        main(arguments)
    with pytest.raises(ConfigError, match="changes nothing without"):
        main([*arguments, "--overwrite", "--top-p", "0.5"])
    with pytest.raises(ConfigError, match="has room for"):  # found out when the model is there
        main(["caption", "--model", exports["opt"], *arguments[3:], "--overwrite", "--prompt", "red " * 300])
    assert output.read_text() == before
    main([*arguments, "--overwrite", "--prompt", "two red"])
    assert len(lines(output.read_text())) == 1 and output.read_text() != before


def test_every_question_is_answered_for_every_image(
    exports: dict[str, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "questions.txt").write_text("Is it a cat?\n\nwhat is on the left?\n")
    files = [str(folder / "a.png"), str(folder / "d.webp")]
    questions = ["--question", "what is it?", "--questions", str(tmp_path / "questions.txt")]
    main(["answer", "--model", exports["opt"], *questions, *files])
    records = lines(capsys.readouterr().out)
    prompts = ["what is it?", "Is it a cat?", "what is on the left?"]
    assert [(line["image"], line["question"]) for line in records] == [(file, q) for file in files for q in prompts]
    model, _ = load_pretrained(exports["opt"])
    assert [line["answer"] for line in records] == [model.answer(file, q)[0] for file in files for q in prompts]
    (tmp_path / "answers.txt").write_text("yes\nno\na cat\n2\n")
    main(["answer", "--model", exports["opt"], *questions, "--candidates", str(tmp_path / "answers.txt"), *files])
    ranked = [model.answer(file, q, candidates=["yes", "no", "a cat", "2"])[0] for file in files for q in prompts]
    assert [line["answer"] for line in lines(capsys.readouterr().out)] == ranked


def test_sampling_gives_the_same_lines_for_the_same_seed(
    exports: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(folder / name) for name in GOOD]
    outputs = []
    for seed in ("1", "1", "2"):
        main(["caption", "--model", exports["opt"], "--sample", "--seed", seed, "--batch-size", "2", *SHORT, *files])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_a_conversation_remembers_its_rounds(
    exports: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("what is it?\nis it red?\nexit\nnever read\n"))
    main(["chat", "--model", exports["opt"], *SHORT, str(folder / "a.png")])
    answers = capsys.readouterr().out.split("\n")[:-1]
    model, _ = load_pretrained(exports["opt"])
    first = model.chat(folder / "a.png", [], "what is it?", max_new_tokens=6)
    second = model.chat(folder / "a.png", [("what is it?", first)], "is it red?", max_new_tokens=6)
    assert answers == [first, second]


def test_device_and_dtype_of_torch_are_understood(exports: dict[str, str]) -> None:
    model, _ = load_pretrained(exports["opt"], device=torch.device("cpu"), dtype=torch.bfloat16)
    assert model.network.vision_model.tower.pos_embed.dtype == torch.bfloat16


def test_a_conversation_forgets_its_start_when_it_grows_too_long(
    exports: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load_pretrained(exports["opt"])
    tokenizer, longest = processor.language_tokenizer, model.network.language_model.config.max_position_embeddings
    message = "red"
    while len(tokenizer.prompt_ids(f"Question: {message} red Answer:")) <= longest - 4 - 6:  # 4 queries, 6 new tokens
        message += " red"
    chat = ["chat", "--model", exports["opt"], *SHORT, str(folder / "a.png")]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{message}\nis it red?\n"))
    main(chat)
    out, err = capsys.readouterr()
    alone = model.chat(folder / "a.png", [], "is it red?", max_new_tokens=6)
    assert out.split("\n")[1:] == [alone, ""] and err.count("is dropped)") == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{message} red\n"))
    assert run_command(main, chat) == 2
    assert "takes" in capsys.readouterr().err.splitlines()[-1]


def test_a_streamed_conversation_is_that_of_one_beam(
    exports: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = ["chat", "--model", exports["opt"], *SHORT, str(folder / "a.png")]
    printed = []
    for more in (["--stream"], ["--num-beams", "1"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("what is it?\nis it red?\n"))
        main([*chat, *more])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and printed[0].count("\n") >= 2
    with pytest.raises(ConfigError, match="num_beams 3 finds its text only at the end"):
        main([*chat, "--stream", "--num-beams", "3"])


def test_every_image_is_scored_with_every_text(
    exports: dict[str, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("two dogs\n")
    texts = ["--text", "a cat", "--texts", str(tmp_path / "texts.txt")]
    assert run_command(main, ["match", "--model", exports["stage1"], *texts, "--batch-size", "3", str(folder)]) == 2
    records = [line for line in lines(capsys.readouterr().out) if "error" not in line]
    assert [(Path(line["image"]).name, line["text"]) for line in records[:3]] == [
        ("a.png", "a cat"), ("a.png", "two dogs"), ("b.JPG", "a cat"),
    ]  # fmt: skip
    model, _ = load_pretrained(exports["stage1"])
    itc, itm = model.match([folder / name for name in GOOD], ["a cat", "two dogs"])
    assert [line["itc"] for line in records] == pytest.approx(itc.flatten().tolist(), abs=1e-5)
    assert [line["itm"] for line in records] == pytest.approx(itm.flatten().tolist(), abs=1e-5)


def test_features_of_good_images_go_to_npz(
    exports: dict[str, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "features.npz"
    arguments = ["embed", "--model", exports["stage1"], "--text", "a cat", "--batch-size", "2", "--output", str(output)]
    assert run_command(main, [*arguments, str(folder)]) == 2
    assert "left out: " in capsys.readouterr().err
    model, _ = load_pretrained(exports["stage1"])
    expected = model.embed([folder / name for name in GOOD], "a cat")
    with np.load(output) as records:
        assert set(records) == {*expected, "image", "text", "index"}
        assert records["image"].tolist() == [str(folder / name) for name in GOOD]
        assert records["text"].tolist() == ["a cat"] * 4
        for name, value in expected.items():
            np.testing.assert_allclose(records[name], value.numpy(), rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.glob(".features-*"))


def test_features_go_to_safetensors_and_texts_need_no_image(
    exports: dict[str, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(folder / name) for name in GOOD]
    main(["embed", "--model", exports["opt"], "--output", str(tmp_path / "a.safetensors"), *files])
    assert "these features cannot be searched" in capsys.readouterr().err
    (tmp_path / "texts.txt").write_text("a cat\ntwo dogs\na red apple\n")
    texts = ["--texts", str(tmp_path / "texts.txt"), "--batch-size", "2"]
    main(["embed", "--model", exports["stage1"], *texts, "--output", str(tmp_path / "b.safetensors")])
    assert "cannot be searched" not in capsys.readouterr().err
    for name, kind, labels, values in (
        ("a", "opt", {"image": files}, {"images": files}),
        (
            "b",
            "stage1",
            {"text": ["a cat", "two dogs", "a red apple"]},
            {"texts": ["a cat", "two dogs", "a red apple"]},
        ),
    ):
        expected = load_pretrained(exports[kind])[0].embed(**values)
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as records:
            about = {k: json.loads(v) for k, v in records.metadata().items()}
            assert about.pop("index")["version"] == 1 and about == labels
            assert set(records.keys()) == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(records.get_tensor(key), value, rtol=1e-5, atol=1e-5)


def test_no_more_images_than_two_batches_are_held(folder: Path) -> None:
    image, taken = StreamedImage("a.png", str(folder / "a.png")), []

    def counted() -> Any:
        for _ in range(50):
            taken.append(image)
            yield image

    batches = read_batches(counted(), Processor(mean=CLIP_MEAN, std=CLIP_STD, image_size=8, max_text_length=4), 4)
    for number, batch in enumerate(batches):
        assert len(batch) == (4 if number < 12 else 2)
        assert len(taken) <= 4 * (number + 2)
    assert len(taken) == 50


def test_files_are_taken_whatever_they_are_called(folder: Path) -> None:
    (folder / "a.png").rename(folder / "photo.of.me")
    assert [Path(image.name).name for image in ImageList([str(folder / "photo.of.me"), str(folder / "below")])] == [
        "photo.of.me", "e.png",
    ]  # fmt: skip


def test_what_is_passed_over_in_a_folder_is_reported(tmp_path: Path) -> None:
    for name in ("a.tif", "b.AVIF", "c.txt", ".hidden.jpg", "d.heic", os.fsdecode(b"e\xe9.jpg")):
        (tmp_path / name).write_bytes(b"x")
    records = ImageList([str(tmp_path)])
    assert [os.fsencode(Path(image.name).name) for image in records] == [
        b"a.tif",
        b"b.AVIF",
        b"e\xe9.jpg",
    ] and records.count == 3
    assert records.passed_over == "3 passed over: 1 hidden file, 1 .txt file, 1 .heic file (.hidden.jpg, c.txt, d.heic)"
    for name in (".hidden.jpg", "a.tif", "b.AVIF", os.fsdecode(b"e\xe9.jpg")):
        (tmp_path / name).unlink()
    with pytest.raises(
        ConfigError, match=r"no image found in .* \(2 passed over: 1 .txt file, 1 .heic file \(c.txt, d.heic\)\); give"
    ):
        ImageList([str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["caption", "--model", "{opt}", "{gone}"], "there is no image or folder .*gone"),
        (["caption", "--model", "{opt}", "{empty}"], "no image found in .*empty"),
        (["caption", "--model", "{gone}", "{image}"], "there is no .*gone; "),
        (["caption", "--model", "{empty}", "{image}"], "empty is not known here"),
        (
            ["caption", "--model", "last:demo_vqa", "{image}"],
            "--model=last:demo_vqa: no run under /.*/outputs/demo_vqa",
        ),
        (["caption", "--model", "{opt}", "{broken}"], "c.jpg is no image that can be read"),
        (["answer", "--model", "{stage1}", "--question", "a?", "{image}"], r"answer needs a generative model \(stag"),
        (["caption", "--model", "{stage1}", "--max-new-tokens", "99", "{image}"], "room for 0 of its 40"),
        (["match", "--model", "{opt}", "--text", "a cat", "{image}"], "match needs an image-text model"),
        (["caption", "--model", "{opt}", "--prompt", "", "{image}"], "--prompt is empty; write a text"),
        (["caption", "--model", "{opt}", "--prompt", "{long}", "{image}"], "takes .* tokens, but beside 4 queries"),
        (["answer", "--model", "{opt}", "{image}"], "no question is given"),
        (["answer", "--model", "{opt}", "--question", " ", "{image}"], "--question is empty"),
        (["answer", "--model", "{opt}", "--question", "!", "{image}"], "a question is empty"),
        (["answer", "--model", "{opt}", "--questions", "{gone}", "{image}"], "gone cannot be read"),
        (["answer", "--model", "{opt}", "--question", "what?", "--prompt", "Q:", "{image}"], "has no {} for the"),
        (["match", "--model", "{stage1}", "{image}"], "no text is given"),
        (["match", "--model", "{stage1}", "--text", "...", "{image}"], "is empty once cleaned"),
        (["match", "--model", "{stage1}", "--texts", "{broken}x", "{image}"], "cannot be read"),
        (["embed", "--model", "{stage1}", "--output", "{gone}.npz"], "nothing to embed"),
        (["embed", "--model", "{stage1}", "--output", "{gone}.csv", "{image}"], "is neither .npz nor .safetensors"),
        (
            ["embed", "--model", "{opt}", "--output", "{gone}.npz", "--text", "a", "{image}"],
            "embed of texts needs an",
        ),
        (["chat", "--model", "{opt}", "{images}"], "holds more than one image; a conversation is about one"),
        (["caption", "--model", "{opt}", "--num-beams", "0", "{image}"], "num_beams must be at least 1"),
        (["caption", "--model", "{opt}", "--num-beams", "two", "{image}"], "--num-beams: invalid int value: 'two'"),
        (
            ["caption", "--model", "{opt}", "--beams", "2", "{image}"],
            "unrecognized arguments: --beams; did you mean --num-beams",
        ),
        (["caption", "--model", "{opt}", "--torch_dtype=x", "{image}"], "torch_dtype=x; here it is --dtype; see"),
        (["match", "--model", "{opt}", "--text", "a", "--image", "{image}"], "it is no option: images stand at the"),
        (
            ["caption", "--model", "{opt}", "--batch-size", "0", "{image}"],
            "--batch-size: '0' is no whole number above 0",
        ),
        (["caption", "--model", "{opt}", "--device", "cuda:7", "{image}"], "device 'cuda:7' is not there"),
        (["caption", "--model", "{opt}", "--device", "gpu", "{image}"], "device 'gpu' is unknown"),
        (["caption", "--model", "{t5}", "--dtype", "float16", "{image}"], "t5 overflows in it"),
        (["captoin", "--model", "{opt}", "{image}"], "invalid choice: 'captoin'"),
        ([], "the following arguments are required: task"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_clear_line(
    exports: dict[str, str],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    (tmp_path / "empty").mkdir()
    inputs = {
        "gone": str(tmp_path / "gone"),
        "empty": str(tmp_path / "empty"),
        "image": str(folder / "a.png"),
        "broken": str(folder / "c.jpg"),
        "images": str(folder),
        "long": "a red apple " * 100,
    }
    filled = [argument.format(**exports, **inputs) for argument in arguments]
    assert run_command(main, filled) == 2
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if not line.startswith(("model: ", "0 images in"))]
    assert len(errors) == 1 and errors[0].startswith("error: "), err
    assert re.search(words, errors[0]), errors[0]
    assert all("error" in line for line in lines(out))
    assert not list(tmp_path.glob("gone*"))


def test_help_comes_at_once(root: Path) -> None:
    script = [sys.executable, "-X", "importtime", "scripts/predict.py", "caption", "--help"]
    shown = subprocess.run(script, cwd=root, capture_output=True, text=True, check=True)
    assert "--num-beams" in shown.stdout and max(map(len, shown.stdout.splitlines())) <= 110
    assert "argparse" in shown.stderr and " torch" not in shown.stderr


@pytest.mark.parametrize("task", ["caption", "answer", "chat", "match", "embed", "search"])
def test_every_task_has_help(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([task, "--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0 and out.startswith(f"usage: predict.py {task} --model SOURCE")
    assert max(map(len, out.splitlines())) <= 110


def test_the_command_stops_quietly_when_no_one_reads_on(
    exports: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setattr(
            sys, "argv", ["predict.py", "caption", "--model", exports["opt"], *SHORT, str(folder / "a.png")]
        )
        with pytest.raises(SystemExit) as left:
            command()
        assert left.value.code == 0
