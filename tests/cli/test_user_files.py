"""What real users brought: every file is used, or refused in one line that says what it is and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import user_files
from demo_exports import write_exports
from question_files import arguments as question_arguments
from shard_files import write_tokenizer
from tiny_run import arguments
from user_files import COUNT

from blip2_train.cli.check import main as check
from blip2_train.cli.evaluate import main as evaluate
from blip2_train.cli.make_shards import main as make_shards
from blip2_train.cli.predict.command import main as predict
from blip2_train.cli.score import main as score
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train

TWO_STEPS = ("data.num_workers=0", "steps=2", "data.holdout=2", "validate_every=2", "optim.warmup_steps=0")
FIGURE = pytest.approx(9.4596, abs=5e-5)
"""CIDEr of all predictions, of pycocoevalcap's own program."""
ACCENTED = pytest.approx(7.3279, abs=5e-5)


class Desk:
    """A folder in which one user works: runs commands, and gives what they say."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        write_tokenizer(folder / "tokenizer")

    def run(self, command: Callable[[list[str]], None], *options: object, refused: bool = False) -> str:
        """What a command prints; it ends well, or with one line of error if it is to be refused."""
        self._capsys.readouterr()
        status = run_command(command, [str(option) for option in options])
        printed = self._capsys.readouterr()
        assert status == (2 if refused else 0), printed
        assert "Traceback" not in printed.out + printed.err
        if refused:
            assert len([line for line in printed.err.splitlines() if line.startswith("error: ")]) == 1
        return printed.out + printed.err

    def captions(self, source: object, *options: object, data: str = "captions") -> list[object]:
        """Options of a tiny run on a file of captions, or on shards."""
        run = f"paths.run_dir={self.folder / 'outputs' / 'run'}"
        tiny = [one for one in arguments(self.folder / "outputs") if not one.startswith("data")]
        return [*tiny, f"data={data}", *TWO_STEPS, f"data.source={source}", run, "verbose=true", *options]

    def questions(self, source: object, images: object, *options: object) -> list[object]:
        """Options of a tiny run on questions of one's own."""
        run = f"paths.run_dir={self.folder / 'outputs' / 'run'}"
        tiny = [
            one
            for one in question_arguments(self.folder / "outputs", self.folder)
            if not one.startswith(("data", "validate_every", "steps"))
        ]
        return [
            *tiny,
            "data=questions",
            f"data.source={source}",
            f"data.images={images}",
            *TWO_STEPS,
            run,
            "verbose=true",
            *options,
        ]

    def shards(self, source: object, output: str = "shards") -> tuple[int, str]:
        """How many samples are in the shards that are made, and what is said."""
        shown = self.run(make_shards, f"source={source}", f"output={self.folder / output}", "workers=1")
        return int(re.findall(r"shards: .* (\d+) samples", shown)[0]), shown


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Desk(tmp_path, capsys)


@pytest.fixture(scope="session")
def tars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return user_files.tars(tmp_path_factory.mktemp("tars"))


@pytest.fixture(scope="session")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return user_files.write_captioned(tmp_path_factory.mktemp("captioned"))


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return user_files.write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="session")
def vqa_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions, and the images below `images`."""
    folder = user_files.write_questions(tmp_path_factory.mktemp("asked"))
    user_files.write_images(folder / "images")
    return folder


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_exports(tmp_path_factory.mktemp("exports"))


def scored(desk: Desk, *options: object) -> dict[str, Any]:
    shown = desk.run(score, *options)
    return json.loads(shown[shown.index("{") : shown.rindex("}") + 1])


def cider(desk: Desk, coco: Path, predictions: str, annotations: str = "annotations.json") -> float:
    files = ("--predictions", coco / predictions, "--annotations", coco / annotations)
    return float(scored(desk, "captions", *files, "--metrics", "cider")["scores"]["cider"])


def test_row_1_names_that_are_no_utf8(tars: dict[str, Path], desk: Desk) -> None:
    source = desk.captions(tars["latin_names"], data="shards")
    assert f"{COUNT - 2} samples in 1 file" in desk.run(train, *source)
    assert "the data can be trained on" in desk.run(check, *source)
    assert desk.shards(tars["latin_names"])[0] == COUNT
    folder = user_files.write_latin_folder(desk.folder / "latin_folder")
    assert desk.shards(folder, "others")[0] == 8


def test_row_2_a_text_that_is_not_unicode(captioned: Path, coco: Path, desk: Desk) -> None:
    source = desk.captions(captioned / "half.jsonl", "steps=10", "data.holdout=0", "validate_every=null")
    assert "1 text is not Unicode" in desk.run(train, *source)
    assert "005.jpg: text is not Unicode" in desk.run(check, *source)
    made, shown = desk.shards(captioned / "half.jsonl")
    assert made == COUNT - 1 and "1 text is not Unicode" in shown
    assert cider(desk, coco, "surrogate.json") == FIGURE


def test_row_3_a_list_of_captions_in_one_cell(captioned: Path, desk: Desk) -> None:
    columns = ("data.picture_column=filename", "data.caption_column=raw", "data.split=train")
    source = desk.captions(captioned / "listed.csv", *columns, "data.holdout=0", "validate_every=null")
    desk.run(train, *source)
    shown = desk.run(check, "--all", *source)
    assert re.search(rf"listed\s+training\s+{COUNT}\s+{COUNT}\s+{2 * COUNT}\s", shown) and '["' not in shown


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_row_4_images_are_distinguished_by_the_files_own_ids(
    ending: str, desk: Desk, exports: dict[str, str], tmp_path: Path
) -> None:
    folder = user_files.write_rsicd(tmp_path / "rsicd")
    file, images = folder / f"dataset_{ending}.json", folder / "images"
    assert "15 samples in 1 file" in desk.run(
        train, *desk.captions(file, f"data.images={images}", "data.split=train", "data.holdout=1")
    )
    common = ("device=cpu", "attention=false", "examples=3")
    for kind, model, own in (("retrieval", "stage1", "shortlist=3"), ("captions", "opt", "metrics=[cider]")):
        task, run = f"tasks.own_{kind}", tmp_path / kind
        where = (f"{task}.annotations={file}", f"{task}.images={images}", f"{task}.split=test", f"{task}.{own}")
        desk.run(
            evaluate, f"evaluation=own_{kind}", f"checkpoint={exports[model]}", *where, *common, f"paths.run_dir={run}"
        )
    written = json.loads((tmp_path / "captions/predictions/own_captions.json").read_text())
    assert [entry["image_id"] for entry in written] == [20, 21, 22, 23]
    assert len(json.loads((tmp_path / "retrieval/predictions/own_retrieval.json").read_text())["image_to_text"]) == 4


def test_row_5_predictions_in_every_spelling_score_alike(coco: Path, desk: Desk) -> None:
    for predictions in ("results.json", "results.jsonl", "results_int.json"):
        assert cider(desk, coco, predictions) == FIGURE
    assert cider(desk, coco, "results.json", "no_file_name.json") == FIGURE
    assert cider(desk, coco, "accents.json", "accent_notes.json") == ACCENTED


def test_row_6_names_are_ids(coco: Path, desk: Desk) -> None:
    assert cider(desk, coco, "named_results.json", "named.json") == FIGURE


def test_row_7_a_part_is_refused_or_scored_as_one(coco: Path, desk: Desk) -> None:
    files = ("captions", "--predictions", coco / "results_part.json", "--annotations", coco / "annotations.json")
    assert "16 images have references but no caption (first: 8, 9, 10)" in desk.run(score, *files, refused=True)
    shown = desk.run(score, *files, "--metrics", "cider", "--partial")
    assert "8 of 24 images scored" in shown
    assert json.loads(shown[: shown.rindex("}") + 1])["partial"] == {"scored": 8, "of": 24}


def test_row_8_visual_genome_1_0(captioned: Path, desk: Desk) -> None:
    file, name = captioned / "vg_flat.json", "data.picture_name='{image_id:03d}.jpg'"
    assert "the data can be trained on" in desk.run(check, *desk.questions(file, captioned, name))
    assert "holds questions, not captions: read it as questions (data=questions)" in desk.run(
        check, *desk.captions(file), refused=True
    )
    shown = user_files.write(
        desk.folder / "r.json", [{"question_id": 900 + n, "answer": "a cat"} for n in range(COUNT)]
    )
    files = ("vqa", "--questions", file, "--predictions", shown)
    assert "one answer, and VQA accuracy compares people; pass --metric exact" in desk.run(score, *files, refused=True)
    assert scored(desk, *files, "--metric", "exact")["accuracy"]["overall"] == 100


@pytest.mark.parametrize("name", ["pipes.csv", "flickr.token", "flickr.token.tsv", "captions.txt"])
def test_row_9_flickrs_own_files(name: str, captioned: Path, desk: Desk) -> None:
    assert f"{COUNT - 2} samples in 1 file" in desk.run(train, *desk.captions(captioned / name))
    made, shown = desk.shards(captioned / name)
    assert made == COUNT and re.search(r"rejected: +none", shown)


def test_row_10_chats_are_refused_with_the_reason(captioned: Path, desk: Desk) -> None:
    for command in (train, check):
        shown = desk.run(command, *desk.captions(captioned / "chat.json"), refused=True)
        assert (
            "holds conversations (LLaVA's layout), not captions" in shown and "what can be read has a caption" in shown
        )


def test_row_11_questions_in_lines_and_lists_are_scored(vqa_files: Path, desk: Desk) -> None:
    def accuracy(questions: str, annotations: str | None, results: str = "results.json", *options: str) -> float:
        files = ["--questions", vqa_files / questions, "--predictions", vqa_files / results, *options]
        files += [] if annotations is None else ["--annotations", vqa_files / annotations]
        return float(scored(desk, "vqa", *files)["accuracy"]["overall"])

    assert accuracy("questions.json", "annotations.json") == 100
    assert accuracy("cp_questions.json", "cp_annotations.json") == 100
    assert accuracy("questions.json", "annotations.json", "results_conf.json") == 95.83
    for own in ("list_int.json", "list.jsonl"):
        assert accuracy(own, None, "results.json", "--metric", "exact") == 0
    for bare, message in (
        (["textvqa.jsonl"], "9 questions of .*textvqa.jsonl have no answers"),
        (["cp_questions.json"], "24 questions of .*cp_questions.json have no answers"),
        (["questions.json", "annotations_v1.json"], "question 18 has no annotation in .*annotations_v1.json"),
    ):
        options = ("--questions", "--annotations")
        files = [word for option, name in zip(options, bare, strict=False) for word in (option, vqa_files / name)]
        assert re.search(
            message, desk.run(score, "vqa", "--predictions", vqa_files / "results.json", *files, refused=True)
        )


@pytest.mark.parametrize(
    ("questions", "annotations", "message"),
    [
        ("list_int.json", None, "22 samples in 1 file"),
        ("list.jsonl", None, "22 samples in 1 file"),
        ("cp_questions.json", "cp_annotations.json", "22 samples in 2 files"),
        ("questions.json", "annotations_v1.json", "6 missing answer"),
        ("textvqa.jsonl", None, "no question of .* has an answer; give the annotations"),
    ],
)
def test_row_11_questions_in_lines_and_lists_train(
    questions: str, annotations: str | None, message: str, vqa_files: Path, desk: Desk
) -> None:
    options = [] if annotations is None else [f"data.annotations={vqa_files / annotations}"]
    options += ["data.picture_name='{image_id:03d}.jpg'"] if annotations else []
    source = desk.questions(vqa_files / questions, vqa_files / "images", *options)
    assert re.search(message, desk.run(train, *source, refused=questions == "textvqa.jsonl"))


def test_row_11_questions_in_lines_and_lists_are_evaluated(
    vqa_files: Path, desk: Desk, exports: dict[str, str]
) -> None:
    task, name = "tasks.own_questions", "'{image_id:03d}.jpg'"
    official = (
        f"{task}.annotations={vqa_files / 'cp_annotations.json'}",
        f"{task}.picture_name={name}",
        f"{task}.metric=vqa",
    )
    for number, (questions, more) in enumerate((("list_int.json", ()), ("cp_questions.json", official))):
        where = (
            f"{task}.questions={vqa_files / questions}",
            f"{task}.images={vqa_files / 'images'}",
            f"{task}.limit=4",
            *more,
        )
        run = desk.folder / f"answers{number}"
        common = (f"checkpoint={exports['opt']}", "device=cpu", "attention=false", "examples=3", f"paths.run_dir={run}")
        desk.run(evaluate, "evaluation=own_questions", *where, *common)
        written = json.loads((run / "predictions/own_questions.json").read_text())
        assert [entry["question_id"] for entry in written] == [0, 1, 2, 3]


def test_row_12_numbers_in_braces(tars: dict[str, Path], desk: Desk) -> None:
    shards = f"{tars['braces']}/{{000..003}}.tar"
    assert f"{COUNT - 2} samples in 4 files" in desk.run(train, *desk.captions(f"'{shards}'", data="shards"))
    assert desk.shards(shards)[0] == COUNT


def test_row_13_the_key_of_the_caption_can_be_chosen(tars: dict[str, Path], desk: Desk) -> None:
    source = desk.captions(tars["jsonkeys"], "data.caption_column=blip_caption", data="shards")
    assert f"{COUNT - 2} samples in 1 file" in desk.run(train, *source)


@pytest.mark.parametrize("name", ["nullcap", "mac", "apart", "upper", "tif"])
def test_row_14_shards_of_all_kinds(name: str, tars: dict[str, Path], desk: Desk) -> None:
    shown = desk.run(train, *desk.captions(tars[name], data="shards"))
    assert f"{COUNT - 2} samples in 1 file" in shown
    if name == "nullcap":
        assert re.search(r"rejected samples: \d+ empty caption", shown)


def test_row_14_members_that_are_no_texts_are_reported(tars: dict[str, Path], desk: Desk) -> None:
    shown = desk.run(train, *desk.captions(tars["text"], data="shards"), refused=True)
    assert re.search(r"no usable sample in .*: missing text 000", shown)


def test_row_15_odd_images_are_read_and_others_are_reported(desk: Desk, exports: dict[str, str]) -> None:
    folder = user_files.write_odd_images(desk.folder / "odd")
    shown = desk.run(predict, "caption", "--model", exports["opt"], "--device", "cpu", "--max-new-tokens", "2", folder)
    named = [Path(json.loads(line)["image"]).name for line in shown.splitlines() if line.startswith("{")]
    assert named == ["avif.avif", "avif_as.jpg", "cmyk.jpg", "several.jpg", "tiff.tif"]
    assert re.search(r"5 images in .* s\n3 passed over: .*1 \.txt file", shown)
    source = desk.captions(folder / "captions.jsonl", "data.holdout=0", "validate_every=null", "global_batch_size=2")
    assert "5 samples in 1 file" in desk.run(train, *source)
    assert not (desk.folder / "outputs/run/rejected.jsonl").exists()
