"""Studies, with runs that are made up: what they ask for, share, keep, refuse and tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from demo_exports import write_exports
from studies.command import main
from studies.definition import names, read_study
from studies.options import read_options
from studies.plan import PlannedRun, make_plan
from studies.running import launch_child

from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError, TrainingError
from blip2_train.system.atomic_write import write_checked

STUDY = """\
title: Does it help?
question: It may.
expected: {written: "2026-12-01", text: "It should."}
steps:
  first: {train: demo_stage1, settings: [steps=60, objective.itm_weight=0]}
  stage1: {train: demo_stage1, settings: [steps=60, validate_every=30, optim.warmup_steps=5]}
  retrieval: {evaluate: demo_retrieval, of: stage1}
arms:
  recipe: {label: as it is}
  weight: {label: weight 2, settings: {stage1: [objective.itm_weight=2]}}
  continued: {label: continued, of: {stage1: first}}
scores:
  - {step: stage1, name: val/loss_itm, label: ITM loss, better: lower, curve: true}
  - {step: retrieval, name: image_to_text_r1, label: R@1, hits_at: 1}
seeds: [0, 1]
"""


class MadeUpRuns:
    """Stands for the commands: writes what they leave, with scores that follow from the settings."""

    def __init__(self) -> None:
        self.started: list[tuple[str, list[str]]] = []

    def __call__(self, command: str, settings: Sequence[str], log: Path, threads: int) -> float:
        self.started.append((command, list(settings)))
        if command == "capfilt":
            write_checked(Path(_value("output", settings)) / "capfilt_demo.json", {})
            return 12.0
        folder = Path(_value("paths.run_dir", settings))
        weight = "objective.itm_weight=2" in settings
        if command == "train":
            seed = int(_value("seed", settings))
            loss = 0.6 - 0.1 * weight - 0.01 * seed * (1 + weight)
            write_checked(folder / "results.json", {"val/loss_itm": loss})
            (folder / "metrics.csv").write_text(f"step,val/loss_itm\n30,0.7\n60,{loss}\n")
            return 30.0
        trained = Path(_value("checkpoint", settings)).parent
        loss = json.loads((trained / "results.json").read_text())["val/loss_itm"]
        ranks = {str(scene): 1.0 if scene / 10 > loss else 3.0 for scene in range(10)}
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        if "evaluation=[demo_caption]" in settings:
            single = {str(scene): scene * (1 - loss) for scene in range(10)}
            write_checked(folder / "predictions/demo_caption.samples.json", {"metric": "cider", "scores": single})
            scores = {"cider": sum(single.values()) / 10, "bleu_4": 0.5}
            write_checked(folder / "results.json", {"tasks": {"demo_caption": {"scores": scores}}})
            return 6.0
        write_checked(folder / "predictions/demo_retrieval.samples.json", {"metric": "rank", "scores": ranks})
        hits = 10.0 * sum(rank == 1 for rank in ranks.values())
        write_checked(folder / "results.json", {"tasks": {"demo_retrieval": {"scores": {"image_to_text_r1": hits}}}})
        return 6.0


def _value(key: str, settings: Sequence[str]) -> str:
    return [s for s in settings if s.startswith(f"{key}=")][-1].partition("=")[2].strip("'")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a whole study was run; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "small.yaml").write_text(STUDY)
    runs = MadeUpRuns()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["small.yaml", "jobs=2"], runs)
    assert sorted(command for command, _ in runs.started) == ["evaluate"] * 6 + ["train"] * 8, "each run once"
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its runs in a working folder of one's own."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs/studies"


def record(folder: Path) -> Any:
    return json.loads((folder / "small/study.json").read_text())


@pytest.mark.slow
def test_the_table_has_what_the_runs_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = record(here)["arms"]
    assert arms["recipe"]["scores"]["stage1/val/loss_itm"] == {"mean": 0.595, "values": {"0": 0.6, "1": 0.59}}
    weight = arms["weight"]["scores"]["stage1/val/loss_itm"]
    assert weight["difference"] == pytest.approx(-0.105) and weight["mean"] == pytest.approx(0.49)
    low, high = weight["interval"]
    assert low < -0.11 < -0.10 < high < 0 and weight["clear"], "wider than the seeds lie apart"
    recall = arms["weight"]["scores"]["retrieval/image_to_text_r1"]
    assert recall["values"] == {"0": 40.0, "1": 50.0} and recall["difference"] == pytest.approx(10.0)
    assert arms["recipe"]["curves"]["stage1/val/loss_itm"]["steps"] == [30, 60]
    assert arms["recipe"]["cpu_seconds"] == 2 * 36.0 and arms["continued"]["cpu_seconds"] == 2 * 66.0
    text = (here / "small/study.md").read_text()
    assert "Expected (2026-12-01, before the first run): It should." in text
    assert "| weight 2 | 0.490 (**−0.105 [" in text and text.count("\n| ") == 5
    main(["small.yaml"], MadeUpRuns())
    shown = capsys.readouterr().out
    assert shown.count("!") == 1 + text.count("(**"), "each clear difference has its mark, and the note names it"
    assert (here / "small/study.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_arm_with_one_seed_is_compared_with_the_same_seed_and_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = STUDY.replace("{label: weight 2,", "{label: weight 2, seeds: [1], curve: false,")
    (tmp_path / "small.yaml").write_text(text)
    main(["small.yaml"], MadeUpRuns())
    arm = record(tmp_path / "outputs/studies")["arms"]["weight"]
    loss = arm["scores"]["stage1/val/loss_itm"]
    assert loss["values"] == {"1": pytest.approx(0.48)} and loss["difference"] == pytest.approx(0.48 - 0.59)
    assert "interval" not in loss and "clear" not in loss
    assert "| weight 2 | 0.480 (−0.110) | 50.0 (+10.0) | 0.6 |" in (
        tmp_path / "outputs/studies/small/study.md"
    ).read_text("utf-8")
    main(["small.yaml", "seeds=0"], MadeUpRuns())
    assert "weight" not in record(tmp_path / "outputs/studies")["arms"], "none of its seeds"


@pytest.mark.slow
def test_a_score_of_a_step_that_an_arm_does_without_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline's own would stand there, as if it were the arm's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(STUDY.replace("of: {stage1: first}", "of: {retrieval: first}"))
    main(["small.yaml"], MadeUpRuns())
    arm = record(tmp_path / "outputs/studies")["arms"]["continued"]
    assert arm["scores"]["stage1/val/loss_itm"] == {"mean": None, "values": {}}
    assert arm["curves"]["stage1/val/loss_itm"] == {"steps": [], "mean": [], "values": {}}
    assert set(arm["runs"]["0"]) == {"first", "retrieval"} and arm["cpu_seconds"] == 2 * 36.0
    text = (tmp_path / "outputs/studies/small/study.md").read_text("utf-8")
    assert "| continued | – | 35.0 (+0.0" in text


@pytest.mark.slow
def test_a_score_that_is_a_mean_of_single_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = STUDY.replace("evaluate: demo_retrieval", "evaluate: demo_caption").replace("  continued:", "  # ")
    (tmp_path / "small.yaml").write_text(text.replace("image_to_text_r1, label: R@1, hits_at: 1", "cider, label: C"))
    main(["small.yaml"], MadeUpRuns())
    whole = record(tmp_path / "outputs/studies")["arms"]["weight"]["scores"]["retrieval/cider"]
    scenes = text.replace("image_to_text_r1, label: R@1, hits_at: 1", "cider, label: C, scenes: true")
    (tmp_path / "small.yaml").write_text(scenes)
    main(["small.yaml"], MadeUpRuns())
    by_scene = record(tmp_path / "outputs/studies")["arms"]["weight"]["scores"]["retrieval/cider"]
    assert by_scene["difference"] == pytest.approx(whole["difference"]) and by_scene["values"] == whole["values"]
    assert by_scene["interval"][0] < whole["interval"][0] and by_scene["interval"][1] > whole["interval"][1]
    assert "| C * |" in (tmp_path / "outputs/studies/small/study.md").read_text()
    (tmp_path / "small.yaml").write_text(scenes.replace("name: cider", "name: bleu_4"))
    with pytest.raises(ConfigError, match=r"retrieval/bleu_4 is 0.5, and the mean over the single scores of .* is "):
        main(["small.yaml"], MadeUpRuns())


@pytest.mark.slow
def test_what_is_finished_is_kept_and_what_was_stopped_goes_on(here: Path) -> None:
    runs, folders = MadeUpRuns(), sorted((here / "runs").glob("demo_stage1_*"))
    for folder in folders[:2]:
        (folder / "results.json").unlink()
    (folders[0] / "checkpoints").mkdir()
    (folders[0] / "checkpoints/step_0000030.ckpt").touch()
    main(["small.yaml"], runs)
    trained = {_value("paths.run_dir", settings): settings for command, settings in runs.started}
    assert set(trained) == {str(folder.relative_to(here.parents[1])) for folder in folders[:2]}
    resumed = ["resume_from" in setting for settings in trained.values() for setting in settings if "resume" in setting]
    assert resumed == [True], "only where there is a checkpoint"
    costs = [json.loads((folder / "cost.json").read_text())["cpu_seconds"] for folder in folders[:2]]
    assert costs == [None, 30.0], "of what was resumed only a part was counted"
    main(["small.yaml", "arms=weight", "seeds=0"], runs)
    assert len(runs.started) == 2 and list(record(here)["arms"]) == ["recipe", "weight"]


@pytest.mark.slow
def test_a_seed_more_and_other_settings_are_other_runs(here: Path) -> None:
    runs = MadeUpRuns()
    main(["small.yaml", "arms=weight", "seeds=0,1,5"], runs)
    assert [command for command, _ in runs.started] == ["train", "evaluate", "train", "evaluate"]
    main(["small.yaml", "arms=recipe", "seeds=0", "optim.lr=5e-4"], runs)
    assert len(runs.started) == 6 and "optim.lr=5e-4" in runs.started[4][1]


@pytest.mark.slow
def test_where_things_lie_does_not_matter(here: Path, tmp_path: Path) -> None:
    study = read_study("small.yaml")

    def keys(*settings: str) -> list[str]:
        return [run.key for run in make_plan("small", study, read_options([*settings, "seeds=0"], study)).runs]

    assert keys() == keys(f"paths.output_dir={tmp_path / 'a'}", f"paths.data_dir={tmp_path / 'b'}")
    assert not set(keys()) & set(keys("global_batch_size=32")), "an evaluation changes with what it evaluates"


@pytest.mark.slow
def test_a_run_is_the_same_once_what_it_starts_from_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training takes settings from the export that it starts from; the study is planned before that is written."""
    monkeypatch.chdir(tmp_path)
    study, exports = read_study("transfer"), write_exports(tmp_path / "exports")

    def runs() -> dict[str, PlannedRun]:
        return make_plan("transfer", study, read_options(["seeds=0", "arms=recipe"], study)).arms["recipe"][0]

    before = runs()
    for step, kind in (("stage1", "stage1"), ("base", "opt"), ("tuned", "opt")):
        shutil.copytree(exports[kind], before[step].folder / "export")
    assert runs() == before


NOISY = """\
title: Does noise matter?
question: It may.
expected: {written: "2026-12-03", text: "It should."}
steps:
  scorer: {train: demo_stage1, settings: [steps=60]}
  captioner: {train: demo_stage2_opt, of: scorer, settings: [steps=60]}
  sets: {capfilt: true, of: captioner, settings: [workers=1]}
  stage1: {train: demo_stage1, of: sets, settings: [steps=60, data.prepare=null]}
arms:
  noisy: {label: noisy, settings: {sets: [wrong=0.3], stage1: ["data.sources.0.path={of}/noisy"]}}
  filtered: {label: filtered, settings: {sets: [wrong=0.3], stage1: ["data.sources.0.path={of}/capfilt"]}}
  half: {label: half wrong, settings: {sets: [wrong=0.5], stage1: ["data.sources.0.path={of}/noisy"]}}
scores:
  - {step: stage1, name: val/loss_itm, label: ITM loss, better: lower}
seeds: [0, 1]
"""


@pytest.mark.slow
def test_trainings_on_what_capfilt_makes_of_noisy_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("noisy.yaml").write_text(NOISY)
    runs, study = MadeUpRuns(), read_study("noisy.yaml")
    main(["noisy.yaml"], runs)
    commands = [command for command, _ in runs.started]
    assert (commands.count("capfilt"), commands.count("train")) == (2 * 2, 2 * (2 + 3)), "arms share what they can"
    planned = make_plan("noisy", study, read_options([], study)).arms
    for seed, steps in planned["filtered"].items():
        sets, models = steps["sets"], (steps["captioner"].export, steps["scorer"].export)
        assert sets.settings[:5] == ("demo", "steps=0", "workers=1", "wrong=0.3", f"seed={seed + 2}")
        assert sets.settings[5:7] == (f"captioner={models[0]}", f"scorer={models[1]}")
        assert {"init_from=null", f"data.sources.0.path={sets.folder}/capfilt"} <= set(steps["stage1"].settings)
        assert planned["noisy"][seed]["sets"] == sets and planned["half"][seed]["sets"].key != sets.key
    assert len({steps["sets"].key for arm in planned.values() for steps in arm.values()}) == 4
    moved = read_options([f"paths.output_dir={tmp_path / 'a'}"], study)
    keys = [
        [run.key for run in make_plan("noisy", study, options).runs] for options in (moved, read_options([], study))
    ]
    assert keys[0] == keys[1], "where things lie does not matter"
    main(["noisy.yaml"], runs)
    assert len(runs.started) == len(commands), "all is kept"


@pytest.mark.slow
@pytest.mark.parametrize("change", [(", of: captioner", ""), ("of: captioner", "of: scorer")])
def test_capfilt_needs_both_models(change: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "noisy.yaml").write_text(NOISY.replace(*change))
    study = read_study(str(tmp_path / "noisy.yaml"))
    with pytest.raises(ConfigError, match=r"arm noisy, step sets: a CapFilt step is of: a captioner that starts from"):
        make_plan("noisy", study, read_options([], study))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["seeds=1,1"], "seeds names 1 twice"),
        (["seeds=x"], "seeds=x: expected"),
        (["jobs=0"], "jobs must be at least 1"),
        (["arms=weigth"], "there is no arm 'weigth' in this study; there are recipe, weight, continued"),
        (["seed=3"], "seed cannot be set in a study: pass seeds="),
        (["objective={itm_weight: 3}"], "objective cannot be set in this study: its arms differ in it"),
        (["+objective.itm_weight=3"], "objective.itm_weight cannot be set in this study: its arms differ in it"),
        (["paths.run_dir=x"], "paths.run_dir cannot be set in a study"),
        (["checkpoints.retrieval=x"], "checkpoints.retrieval cannot be set in a study"),
        (["optim.lrr=3"], "did you mean 'optim.lr'?"),
        (["tasks.demo_retrieval.limt=3"], "did you mean 'tasks.demo_retrieval.limit'?"),
        (["job=2"], "did you mean 'jobs'?"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    settings: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = MadeUpRuns()
    assert run_command(lambda given: main(given, runs), ["small.yaml", *settings]) == 2 and runs.started == []
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.startswith("error: ") and printed.err.count("\n") == 1


def test_an_unknown_study_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, ["itn"]) == 2
    assert "there is no study 'itn'; there are itm, " in capsys.readouterr().err
    assert run_command(main, ["seeds=3"]) == 2
    assert "the first argument names a study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("of: stage1}", "of: stage3}"), "step retrieval starts from 'stage3', which is no earlier step"),
        (("of: {stage1: first}", "of: {stage1: retrieval}"), "arm continued: step stage1 starts from 'retrieval'"),
        (("of: {stage1: first}", "of: {retrieval: null}"), "arm continued: step retrieval evaluates nothing"),
        (("step: retrieval", "step: other"), "scores name 'other', which is no step"),
        (("{stage1: first}", "{stage1: third}"), "arm continued names 'third', which is no step"),
        (
            ("{train: demo_stage1, settings: [steps=60, o", "{train: a, evaluate: b, settings: [o"),
            "step first has either",
        ),
        (("of: stage1}", "of: stage1, capfilt: true}"), "step retrieval has either train, evaluate or capfilt"),
        (("evaluate: demo_retrieval", "capfilt: true"), "scores name 'retrieval', which is a step without scores"),
        (("title:", "titel:"), "titel"),
        (("{label: as it is}", "{label: as it is, seeds: [0]}"), "arm recipe is compared with all others"),
        (("{label: weight 2,", "{label: weight 2, seeds: [4],"), "arm weight has seeds that the study does not have"),
    ],
)
def test_a_definition_that_does_not_fit_together(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(STUDY.replace(*change))
    with pytest.raises(ConfigError, match=words):
        read_study(str(file))


@pytest.mark.parametrize("name", names())
def test_each_study_holds_what_was_expected(name: str) -> None:
    study = read_study(name)
    assert study.expected.written and len(study.expected.text.split()) > 20 and len(study.seeds) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_each_study_composes(name: str) -> None:
    study = read_study(name)
    plan = make_plan(name, study, read_options(["seeds=0"], study))
    assert len(plan.runs) >= len(study.arms)
    weights = {tuple(run.settings) for run in plan.runs}
    assert len(weights) == len(plan.runs)
    assert not any("{" in setting for run in plan.runs for setting in run.settings)


@pytest.mark.slow
def test_a_child_that_fails_or_leaves_nothing_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError, match=r"scripts/train.py ended with status 2 \(error: .*nothing"):
        launch_child("train", ["experiment=nothing"], here / "log", 1)
    shutil.rmtree(here)
    assert run_command(lambda given: main(given, lambda *_: None), ["small.yaml"]) == 2
    assert "ended without" in capsys.readouterr().err
