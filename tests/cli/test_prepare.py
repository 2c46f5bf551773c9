"""The command that looks at official files: every set once in small, then everything that can be wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blip2_train.cli.prepare import main
from blip2_train.cli.terminal import run_command
from blip2_train.data.official.sets import SETS

KARPATHY = {1: "train", 2: "train", 3: "restval", 4: "val", 5: "test"}
SMALL = {
    "coco/dataset_coco.json": {"train": 2, "restval": 1, "val": 1, "test": 1, "captions": 10},
    "coco/coco_karpathy_train.json": {"images": 3, "captions": 6},
    "coco/coco_karpathy_val.json": {"images": 1},
    "coco/coco_karpathy_test.json": {"images": 1, "captions": 2},
    "nocaps/nocaps_val_4500_captions.json": {"images": 2, "captions": 20, "in-domain": 1, "out-domain": 1},
    "nocaps/nocaps_test_image_info.json": {"images": 1},
    "vqa_v2/v2_OpenEnded_mscoco_train2014_questions.json": {"questions": 2},
    "vqa_v2/v2_OpenEnded_mscoco_val2014_questions.json": {"questions": 1},
    "visual_genome/question_answers.json": {},
    "visual_genome/region_descriptions.json": {"images": 2, "phrases": 4},
    "okvqa/OpenEnded_mscoco_train2014_questions.json": {"questions": 2},
    "okvqa/OpenEnded_mscoco_val2014_questions.json": {"questions": 1},
    "gqa/train_balanced_questions.json": {"questions": 2},
    "gqa/testdev_balanced_questions.json": {"questions": 1},
    "flickr30k/dataset_flickr30k.json": {"train": 1, "val": 1, "test": 1},
}


def coco_path(number: int) -> str:
    part = "train2014" if KARPATHY[number] == "train" else "val2014"
    return f"{part}/COCO_{part}_{number:012d}.jpg"


def write(root: Path, name: str, content: Any) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))


def vqa(root: Path, names: tuple[str, str], shown: list[int]) -> None:
    questions = [{"question_id": 10 * n, "image_id": image, "question": "?"} for n, image in enumerate(shown)]
    answered = [{**one, "answers": [{"answer": "yes"}] * 10} for one in questions]
    write(root, names[0], {"questions": questions})
    write(root, names[1], {"annotations": answered})


def gqa(*shown: str) -> dict[str, Any]:
    return {f"0{n}": {"imageId": image, "question": "?", "answer": "b"} for n, image in enumerate(shown)}


def fill(root: Path) -> None:
    """All sets, as their official files are laid out."""
    images = []
    for number, split in KARPATHY.items():
        folder, name = coco_path(number).split("/")
        sentences = [{"raw": "a"}, {"raw": "b"}]
        images.append({"filepath": folder, "filename": name, "split": split, "cocoid": number, "sentences": sentences})
        write(root, f"coco/images/{coco_path(number)}", "")
    write(root, "coco/dataset_coco.json", {"images": images})
    train = [{"image": coco_path(n), "caption": text, "image_id": f"coco_{n}"} for n in (1, 2, 3) for text in "ab"]
    write(root, "coco/coco_karpathy_train.json", train)
    write(root, "coco/coco_karpathy_val.json", [{"image": coco_path(4), "caption": ["a", "b"]}])
    write(root, "coco/coco_karpathy_test.json", [{"image": coco_path(5), "caption": ["a", "b"]}])
    domains = [(7, "in-domain"), (8, "out-domain")]
    known = [{"id": n, "file_name": f"{n}f.jpg", "domain": domain} for n, domain in domains]
    captions = [{"id": n, "image_id": 7 + n % 2, "caption": "x"} for n in range(20)]
    write(root, "nocaps/nocaps_val_4500_captions.json", {"images": known, "annotations": captions})
    write(root, "nocaps/nocaps_test_image_info.json", {"images": [{"id": 0, "file_name": "9f.jpg"}]})
    for name in ("7f.jpg", "8f.jpg", "9f.jpg"):
        write(root, f"nocaps/images/{name}", "")
    for name in ("vqav2", "okvqa"):
        for file, shown in zip(SETS[name], ([1, 2], [4]), strict=True):
            vqa(root, file.paths, shown)  # type: ignore[arg-type]
    genome = [{"id": n, "qas": [{"qa_id": n, "question": "?", "answer": "x"}]} for n in (1, 2)]
    write(root, "visual_genome/question_answers.json", genome)
    regions = [{"id": n, "regions": [{"region_id": 1, "image_id": n, "phrase": p} for p in "ab"]} for n in (1, 2)]
    write(root, "visual_genome/region_descriptions.json", regions)
    write(root, "visual_genome/VG_100K/1.jpg", "")
    write(root, "visual_genome/VG_100K_2/2.jpg", "")
    write(root, "gqa/train_balanced_questions.json", gqa("1", "2"))
    write(root, "gqa/testdev_balanced_questions.json", gqa("n3"))
    for name in ("1", "2", "n3"):
        write(root, f"gqa/images/{name}.jpg", "")
    flickr = []
    for n, split in enumerate(("train", "val", "test"), start=1):
        flickr.append({"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": "a"}]})
        write(root, f"flickr30k/images/{n}.jpg", "")
    write(root, "flickr30k/dataset_flickr30k.json", {"images": flickr})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with all sets, which are expected to be as small as they are."""
    assert {file.paths[0] for files in SETS.values() for file in files} == SMALL.keys()
    for name, files in SETS.items():
        monkeypatch.setitem(SETS, name, tuple(replace(file, counts=SMALL[file.paths[0]]) for file in files))
    fill(tmp_path)
    return tmp_path


def checked(root: Path, capsys: pytest.CaptureFixture[str], *names: str) -> tuple[int, list[str]]:
    code = run_command(main, [*names, "--data-dir", str(root)])
    printed = capsys.readouterr()
    assert (code == 2) == printed.err.startswith("error: ") and printed.err.count("\n") <= 1
    return code, [line.strip() for line in printed.out.splitlines() if line.startswith("  ")]


def test_complete_sets_are_reported_complete(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = checked(root, capsys, *SETS)
    assert code == 0, lines
    assert len(lines) == len(SMALL) and all(line.startswith("whole ") for line in lines)
    assert "2 train, 1 restval, 1 val, 1 test, 10 captions; all 5 images are there" in lines[0]


def lost(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def changed(name: str, content: Any) -> Callable[[Path], None]:
    return lambda root: write(root, name, content)


def another_split(root: Path) -> None:
    write(root, "coco/coco_karpathy_test.json", json.loads((root / "coco/coco_karpathy_val.json").read_text()))


def twice_in_karpathy(root: Path) -> None:
    content = json.loads((root / "coco/dataset_coco.json").read_text())
    content["images"].append(content["images"][0] | {"split": "test"})
    write(root, "coco/dataset_coco.json", content)


def val_asks_about_train(root: Path) -> None:
    vqa(root, SETS["vqav2"][1].paths, [1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("coco_karpathy", lost("coco/dataset_coco.json"), "missing   coco/dataset_coco.json: put it below"),
        ("coco_karpathy", lost(f"coco/images/{coco_path(3)}"), f"1 of its 5 images .*first: {coco_path(3)}"),
        ("coco_karpathy", changed("coco/dataset_coco.json", '{"images": ['), "is broken JSON"),
        ("coco_karpathy", twice_in_karpathy, "wrong .* image 1 comes twice"),
        ("coco_karpathy", another_split, "images are not in test of coco/dataset_coco.json .*first: 4 val20"),
        ("nocaps", lost("nocaps/images/9f.jpg"), "wrong .*nocaps_test_image_info.json: 1 of its 1 images"),
        ("vqav2", lost(SETS["vqav2"][0].paths[1]), "put vqa_v2/v2_mscoco_train2014_annotations.json below"),
        ("vqav2", val_asks_about_train, "images of .*val2014_questions.json are in .*train2014.* 1 val2014"),
        ("okvqa", lost(f"coco/images/{coco_path(4)}"), "1 of its 1 images are not in .*coco/images"),
        ("visual_genome", lost("visual_genome/VG_100K_2/2.jpg"), r"1 of its 2 .*VG_100K or .*VG_100K_2 \(first: 2"),
        ("gqa", changed("gqa/testdev_balanced_questions.json", gqa("1")), "images of gqa/testdev.* are in gqa/train"),
        ("gqa", changed("gqa/train_balanced_questions.json", gqa("1")), "it holds 1 questions instead of 2; get it"),
        ("flickr30k", lost("flickr30k/images/2.jpg"), "1 of its 3 images"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, broken: Callable[[Path], None], message: str
) -> None:
    broken(root)
    code, lines = checked(root, capsys, name)
    faults = [line for line in lines if not line.startswith(("whole", "not there"))]
    lists_too = int(bool(re.search("5 images|VG_100K", message)))  # another file of the set names the image too
    assert code == 2 and len(faults) == 1 + lists_too
    assert re.search(message, faults[0]), faults[0]


def test_an_optional_file_may_be_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "nocaps/nocaps_test_image_info.json").unlink()
    code, lines = checked(root, capsys, "nocaps")
    assert code == 0 and lines[1].startswith("not there nocaps/nocaps_test_image_info.json: put it below")


def test_the_list_names_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, []) == 0
    printed = capsys.readouterr().out
    for files in SETS.values():
        for file in files:
            assert all(path in printed for path in file.paths) and file.origin in printed
    assert "417 in-domain, 2,670 near-domain, 1,413 out-domain" in printed
    assert run_command(main, ["coco"]) == 2
    assert "there is no data set 'coco'; choose among coco_karpathy, nocaps" in capsys.readouterr().err


def test_expected_numbers_add_up() -> None:
    files = {file.paths[0]: file.counts for files in SETS.values() for file in files}
    coco, train = files["coco/dataset_coco.json"], files["coco/coco_karpathy_train.json"]
    assert coco["train"] + coco["restval"] == train["images"] == 113_287
    assert coco["captions"] - train["captions"] == 2 * files["coco/coco_karpathy_test.json"]["captions"]
    nocaps = files["nocaps/nocaps_val_4500_captions.json"]
    assert sum(count for name, count in nocaps.items() if name.endswith("domain")) == nocaps["images"] == 4_500
