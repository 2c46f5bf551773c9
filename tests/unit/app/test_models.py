"""The page's models are the newest exports of this machine, and what was named."""

from __future__ import annotations

import gc
import os
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from demo_exports import write_exports

from blip2_train.app.access import Access
from blip2_train.app.models import KnownModel, Models, named_models, newest_exports
from blip2_train.checkpoints.export import MANIFEST, read_manifest
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.system.atomic_write import write_checked


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_exports(tmp_path_factory.mktemp("exports"))


def runs(folder: Path, exports: dict[str, str]) -> Path:
    """Run folders as trainings leave them, one of them without an export and one with a damaged one."""
    for run, kind in (("demo_stage1/one", "stage1"), ("demo_stage1/two", "stage1"), ("demo_opt/run", "opt")):
        shutil.copytree(exports[kind], folder / run / "export")
    (folder / "stopped" / "run").mkdir(parents=True)
    (folder / "damaged" / "run" / "export").mkdir(parents=True)
    (folder / "damaged" / "run" / "export" / "manifest.json").write_text("{")
    os.utime(folder / "damaged" / "run" / "export" / "manifest.json", (1, 1))
    return folder


def test_the_newest_export_of_each_recipe(
    tmp_path: Path, exports: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(tmp_path / "outputs", exports)
    monkeypatch.chdir(tmp_path)
    models = newest_exports(Path("outputs"))
    assert {(model.source, model.label, model.matches_texts) for model in models} == {
        ("last:demo_opt", "demo_opt (step 1)", False),
        ("last:demo_stage1", "demo_stage1 (step 1)", True),
    }
    assert models[0].source == "last:demo_opt", "it was written after the other"
    elsewhere = newest_exports(tmp_path / "outputs")
    assert {Path(model.source).parts[-3:] for model in elsewhere} > {("demo_opt", "run", "export")}
    assert newest_exports(tmp_path / "nowhere") == []


def test_named_folders_are_told_apart_by_the_ends_of_their_paths(tmp_path: Path) -> None:
    ends = ("demo_stage1/one/export", "demo_stage1/two/export", "mine/blip2")
    folders = [str(tmp_path / end) for end in ends]
    for folder in folders:
        Path(folder).mkdir(parents=True)
    named = named_models([*folders, "last:demo_stage1", "some/model"])
    assert [model.source for model in named] == [*folders, "last:demo_stage1", "some/model"]
    assert [model.label for model in named] == [
        "demo_stage1/one", "demo_stage1/two", "mine/blip2", "last:demo_stage1", "some/model"
    ]  # fmt: skip
    alike = [str(tmp_path / side / "mine" / "blip2") for side in "ab"]
    for folder in alike:
        Path(folder).mkdir(parents=True)
    assert [model.label for model in named_models(alike)] == ["a/mine/blip2", "b/mine/blip2"], "as much as differs"


def test_a_model_of_questions_is_first_for_questions_and_last_for_captions(
    tmp_path: Path, exports: dict[str, str]
) -> None:
    folder = runs(tmp_path, exports)
    questions = folder / "demo_vqa" / "run" / "export"
    shutil.copytree(exports["opt"], questions)
    manifest = read_manifest(questions)
    prompt = {"prompt": "Question: {} Answer:"}
    write_checked(questions / MANIFEST, replace(manifest, processor=manifest.processor | prompt).__dict__)
    models = Models(newest_exports(folder), Access(everything=True))
    names = ["demo_vqa (step 1)", "demo_opt (step 1)"]
    assert [label for label, _ in models.choices(False, of_questions=True)] == names
    assert [label for label, _ in models.choices(False)] == names[::-1]
    assert [label for label, _ in models.choices()] == [*names[::-1], "demo_stage1 (step 1)"]


@pytest.mark.slow
def test_two_models_are_kept(exports: dict[str, str]) -> None:
    models = Models([], Access(everything=True))
    first = models.open(exports["stage1"])
    assert models.open(f" {exports['stage1']} ") is first
    models.open(exports["opt"])
    assert models.open(exports["stage1"]) is first, "the last ones are kept"
    models.open(exports["t5"])
    models.open(exports["opt"])
    assert models.open(exports["stage1"]) is not first


def test_what_was_made_of_a_model_goes_with_it(exports: dict[str, str]) -> None:
    models, made = Models([], Access(everything=True)), list[str]()

    class Index:
        def __init__(self, model: Blip2) -> None:
            self.model = model
            made.append(model.source)

    index = models.made_of(exports["stage1"], Index)
    assert models.made_of(f" {exports['stage1']}", Index) is index and len(made) == 1
    gone = weakref.ref(index.model), weakref.ref(index)
    del index
    models.open(exports["opt"])
    gc.collect()
    assert None not in [one() for one in gone], "the last two models are kept, with what belongs to them"
    models.open(exports["t5"])
    gc.collect()
    assert [one() for one in gone] == [None, None], "neither the third model nor its index stays in memory"
    only = weakref.ref(models.made_of(exports["opt"], Index))
    models.made_of(exports["t5"], Index)
    gc.collect()
    assert only() is None, "of two models one index is kept, the last"


def test_tabs_offer_what_fits() -> None:
    known = [KnownModel(source=name, label=name.upper(), matches_texts=kind) for name, kind in KINDS.items()]
    models = Models(known, Access(everything=True))
    assert models.choices(True) == [("MATCHES", "matches"), ("UNKNOWN", "unknown")]
    assert models.choices(False) == [("UNKNOWN", "unknown"), ("GENERATES", "generates")]
    assert [source for _, source in models.choices()] == ["unknown", "generates", "matches"]


KINDS = {"matches": True, "unknown": None, "generates": False}


def test_named_models_are_opened_at_once(exports: dict[str, str]) -> None:
    models = Models([KnownModel(source=exports["stage1"], label="mine")], Access(everything=False))
    with pytest.raises(ConfigError, match="was not named"):
        models.open(exports["opt"])
    models = Models([KnownModel(source=exports["stage1"], label="mine")], Access(everything=True))
    models.open_named()
    assert models.known[0].matches_texts is True
    wrong = Models([KnownModel(source="/no/such/export", label="mine")], Access(everything=True))
    with pytest.raises(CheckpointMismatch, match="/no/such/export"):
        wrong.open_named()


def test_a_machine_without_models_names_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match=r"has none yet: train one \(bash run_scripts/pretrain_stage1\.sh\)"):
        Models([], Access(everything=True)).open(None)
