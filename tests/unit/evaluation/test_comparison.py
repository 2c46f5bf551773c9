"""Runs side by side: which settings differ, which score is the best, and a page that shows both with the curves."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from blip2_train.cli.compare import MOST_SETTINGS, main
from blip2_train.cli.terminal import run_command
from blip2_train.evaluation.comparison import runs
from blip2_train.evaluation.comparison.page import write_comparison
from blip2_train.evaluation.comparison.runs import OWN_FOLDER, read_runs
from blip2_train.evaluation.comparison.tables import ABSENT, differing_settings, score_rows
from blip2_train.evaluation.report.content import TaskReport, TaskSettings
from blip2_train.evaluation.report.results import write_results
from blip2_train.system.atomic_write import write_checked


def write_run(
    folder: Path, loss: float, recall: float, results: dict[str, float] | None = None, **settings: Any
) -> Path:
    folder.mkdir(parents=True)
    known = {"seed": 1, "optim": {"lr": 1e-4, "betas": [0.9, 0.98]}, "paths": {"run_dir": str(folder)}}
    known |= {"module": {"seed": settings.get("seed", 1)}, "data": {"cache": f"{folder}/cache"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(known | settings, sort_keys=False))
    lines = ["step,train/loss,val/loss_itc,val/image_to_text_r10,val/image_to_text_r5,val/pairs"]
    lines += [f"1,{loss + 2},,,,", f"10,{loss + 1},{loss + 1},{recall / 2},1.0,64", f"20,{loss},{loss},{recall},2.0,64"]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    if results is not None:
        write_checked(folder / "results.json", results)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    first = write_run(tmp_path / "first/run", 2.0, 40.0, seed=1)
    slower = {"val/loss_itc": 1.5, "steps": 20.0, "samples_per_second": 99.0}
    second = write_run(tmp_path / "second/run", 1.6, 30.0, slower, seed=2, note="<b>\x1b[2J", extra={"on": True})
    return [first, second]


def test_the_settings_that_differ_are_listed_once(folders: list[Path]) -> None:
    rows = {row.label: row.values for row in differing_settings(read_runs(folders))}
    assert rows == {"seed": ("1", "2"), "note": (ABSENT, "<b>\x1b[2J"), "extra.on": (ABSENT, "true")}


def test_a_setting_that_follows_another_is_not_listed_again(tmp_path: Path) -> None:
    folders = [
        write_run(
            tmp_path / prompt, 2.0, 40.0,
            steps=steps, trainer={"max_steps": steps}, collator={"prompt": prompt}, module={"prompt": "x" + prompt},
            data={"collator": {"prompt": prompt}},
        )
        for prompt, steps in (("a", 1), ("b", 2))
    ]  # fmt: skip
    labels = [row.label for row in differing_settings(read_runs(folders))]
    assert sorted(labels) == ["collator.prompt", "module.prompt", "steps"]


def test_scores_that_are_shown_alike_are_equally_good(tmp_path: Path) -> None:
    runs = [{"val/loss_itc": loss} for loss in (1.5001, 1.5002, 1.6)]
    folders = [write_run(tmp_path / str(number), 2.0, 40.0, run) for number, run in enumerate(runs)]
    for chosen, best in (([0, 1, 2], {0, 1}), ([0, 1], set())):
        rows = {row.label: row for row in score_rows(read_runs([folders[number] for number in chosen]))}
        assert rows["ITC loss (nats), held-out"].best == best


def test_losses_of_other_objectives_are_not_ranked(tmp_path: Path) -> None:
    """A sum with other weights is another quantity; its parts are the same, unless label smoothing changes them."""
    objective = {"itg_weight": 1.0, "label_smoothing": 0.1}
    folders = [
        write_run(tmp_path / "recipe", 2.0, 40.0, objective=objective),
        write_run(tmp_path / "no_itg", 1.0, 30.0, objective=objective | {"itg_weight": 0.0}),
        write_run(tmp_path / "sharp", 0.5, 20.0, objective=objective | {"label_smoothing": 0.0}),
    ]
    only_recall = write_run(tmp_path / "recall", 1.0, 10.0)
    (only_recall / "metrics.csv").write_text("step,val/image_to_text_r10\n20,10.0\n")
    beside = write_run(tmp_path / "beside", 3.0, 10.0, objective=objective)
    mixed = {row.label: row.best for row in score_rows(read_runs([folders[0], beside, only_recall]))}
    assert mixed["ITC loss (nats), held-out"] == {0}, "a run without the loss does not matter"
    chosen = {
        number: {row.label: row.best for row in score_rows(read_runs([folders[0], folders[number]]))}
        for number in (1, 2)
    }
    assert chosen[1]["loss (nats), train"] == chosen[2]["loss (nats), train"] == frozenset()
    assert chosen[1]["ITC loss (nats), held-out"] == {1} and chosen[2]["ITC loss (nats), held-out"] == frozenset()
    assert chosen[1]["image→text, R@10 (%), held-out"] == chosen[2]["image→text, R@10 (%), held-out"] == {0}


def test_scores_of_other_samples_are_not_ranked(tmp_path: Path) -> None:
    """The right one of 40 images comes first more easily than that of 256."""
    data: dict[str, Any] = {"sources": [{"path": "a.csv"}], "holdout": None, "validation": {"path": "val"}}
    differing = {
        "alike": {},
        "validation": {"validation": {"path": "other"}},
        "source": {"sources": [{"path": "b.csv"}]},
    }
    recall, loss = "image→text, R@10 (%), held-out", "loss (nats), train"
    for holdout in (None, 256):
        first = write_run(tmp_path / f"{holdout}", 2.0, 40.0, data=data | {"holdout": holdout})
        best = {}
        for name, changed in differing.items():
            other = write_run(tmp_path / f"{holdout}/{name}", 1.0, 30.0, data=data | {"holdout": holdout} | changed)
            best[name] = {row.label: row.best for row in score_rows(read_runs([first, other]))}
        assert best["alike"][recall] == {0} and best["alike"][loss] == {1}
        assert best["validation"][recall] == set() and best["validation"][loss] == {1}
        assert best["source"][recall] == ({0} if holdout is None else set()), "a part of the source is held out"
        assert best["source"][loss] == set()
    fewer = write_run(tmp_path / "fewer", 1.0, 50.0, data=data)
    (fewer / "metrics.csv").write_text((fewer / "metrics.csv").read_text().replace(",64", ",40"))
    rows = {row.label: row.best for row in score_rows(read_runs([tmp_path / "None", fewer]))}
    assert rows[recall] == set() and rows[loss] == {1}


def test_the_scores_are_those_at_the_end_and_the_best_is_known(folders: list[Path]) -> None:
    rows = {row.label: (row.values, row.best) for row in score_rows(read_runs(folders))}
    assert rows["ITC loss (nats), held-out"] == (("2.000", "1.500"), {1})  # results.json has the last word
    assert rows["image→text, R@10 (%), held-out"] == (("40.0", "30.0"), {0})
    assert rows["image→text, R@5 (%), held-out"] == (("2.0", "2.0"), frozenset())
    assert rows["pairs, held-out"] == (("64", "64"), frozenset())
    assert rows["samples/s"] == ((ABSENT, "99"), frozenset())
    assert list(rows).index("image→text, R@5 (%), held-out") < list(rows).index("image→text, R@10 (%), held-out")


def test_seconds_of_a_part_are_not_compared(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", 2.0, 40.0, {"seconds": 9.0})
    resumed = write_run(tmp_path / "resumed", 2.0, 40.0, {"seconds": 5.0, "seconds_since_step": 10.0})
    rows = {row.label: row.values for row in score_rows(read_runs([whole, resumed]))}
    assert rows["seconds"] == ("9", ABSENT)


def test_an_unfinished_run_is_compared_by_the_validation_that_it_would_export(tmp_path: Path) -> None:
    """A finished one has the scores of its best checkpoint; the last ones of the other would be of something else."""
    monitored = {"monitor": "val/image_to_text_r10", "steps": 40}
    exported = {"val/image_to_text_r10": 35.0, "exported_step": 30.0, "steps": 40.0}
    folders = [
        write_run(tmp_path / "finished", 2.0, 40.0, exported, **monitored),
        write_run(tmp_path / "running", 2.0, 40.0, **monitored),
        write_run(tmp_path / "loss", 2.0, 40.0, **monitored | {"monitor": "val/loss_itc"}),
        write_run(tmp_path / "last", 2.0, 40.0, steps=40),
        write_run(tmp_path / "started", 2.0, 40.0, monitor="null"),
    ]
    for folder in folders[1:4]:  # its best validation is not its last, but for the loss
        with (folder / "metrics.csv").open("a") as file:
            file.write("30,1.9,1.8,15.0,1.0,64\n35,1.7,,,,\n")
    (folders[4] / "metrics.csv").write_text("step,train/loss\n3,1.0\n")
    runs = read_runs(folders)
    assert [run.state for run in runs] == [
        "held-out scores of step 30, the best by val/image_to_text_r10",
        "not finished: at step 35 of 40; held-out scores of step 20, the best by val/image_to_text_r10",
        "not finished: at step 35 of 40; held-out scores of step 30, the best by val/loss_itc",
        "not finished: at step 35 of 40; held-out scores of step 30, the last",
        "not finished: at step 3",
    ]
    rows = {row.label: row.values for row in score_rows(runs)}
    assert rows["image→text, R@10 (%), held-out"] == ("35.0", "40.0", "15.0", "15.0", ABSENT)
    assert rows["ITC loss (nats), held-out"][1:4] == ("2.000", "1.800", "1.800")
    assert rows["loss (nats), train"][1:4] == ("1.700",) * 3
    assert "not finished: at step 35 of 40; held-out scores of step 20" in write_comparison(
        tmp_path / "page.html", runs
    ).read_text("utf-8")


def test_evaluations_are_compared_by_task(tmp_path: Path) -> None:
    for name, cider in (("one", 1.2), ("two", 1.4)):
        settings = TaskSettings(checkpoint=name, checkpoint_fingerprint="", data_fingerprints={})
        scores = {"in-domain/cider": cider, "accuracy": 50.0 if name == "one" else None}
        report = TaskReport(
            name="a",
            title="A set",
            kind="captioning",
            scores=scores,
            settings=settings,
            reasons={"accuracy": "no reason"},
        )
        write_results(tmp_path / name / "results.json", [report])
    fewer = replace(report, settings=replace(settings, data_fingerprints={"a": "other"}))
    write_results(tmp_path / "fewer" / "results.json", [fewer])
    for row in score_rows(read_runs([tmp_path / "one", tmp_path / "fewer"])):
        assert row.best == set(), "of other samples"
    rows = {row.label: (row.values, row.best) for row in score_rows(read_runs([tmp_path / "one", tmp_path / "two"]))}
    assert rows["A set, in-domain, CIDEr"] == (("1.200", "1.400"), {1})
    assert rows["A set, accuracy (%)"] == (("50.0", ABSENT), frozenset())


def test_the_page_holds_everything_and_loads_nothing(folders: list[Path], tmp_path: Path) -> None:
    page = write_comparison(tmp_path / "new/page.html", read_runs(folders)).read_text("utf-8")
    assert "<script" not in page and "src=" not in page and "http://" not in page and "https://" not in page
    assert "&lt;b&gt;\ufffd[2J" in page and "<b>40.0</b>" in page and "extra.on" in page
    charts = re.findall(r'<svg [^>]*aria-label="([^"]+)"', page)
    assert len(charts) == 4 and charts[0].startswith("loss (nats), train: ")
    assert "first/run from 3.000 to 2.000; second/run from 2.600 to 1.600" in page


def test_no_two_lines_of_a_chart_look_alike(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / f"run{number:02d}", 1.0 + number, 1.0) for number in range(27)])
    page = write_comparison(tmp_path / "page.html", runs).read_text("utf-8")
    charts = re.findall(r"<figure class=.chart.>.*?</figure>", page, flags=re.DOTALL)
    assert charts
    for chart in charts:
        lines = re.findall(r'<g class="(line line-\d)"><polyline points="[^"]*"( stroke-dasharray="[^"]*")?', chart)
        assert len(lines) == len({*lines}) == 27
        keys = re.findall(
            r'<span class="key data (line-\d)"><svg [^>]*><line [^>]*?( stroke-dasharray="[^"]*")?>', chart
        )
        assert [(f"line {colour}", dashes) for colour, dashes in keys] == lines, "the key shows each as it is drawn"


def test_the_command_prints_both_tables_and_writes_the_page_if_given(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    names = [str(folder) for folder in folders]
    main([*names, "--output", str(tmp_path / "page.html")])
    out = capsys.readouterr().out
    assert re.search(r"ITC loss \(nats\), held-out +2\.000 +1\.500 \*\n", out) and re.search(r"seed +1 +2 *\n", out)
    assert f"({folders[0]})\n   not finished: at step 20; held-out scores of step 20, the last\n" in out
    assert "\x1b" not in out and "3 settings differ\n" in out and f"page: {tmp_path}/page.html" in out
    assert all(len(line) <= 70 for line in out.splitlines() if str(tmp_path) not in line)
    assert run_command(main, [*names, "--output", str(tmp_path / "page.html")]) == 2
    assert "page.html is there already" in capsys.readouterr().err
    many = write_run(tmp_path / "many", 1.0, 1.0, extra={f"key{number}": number for number in range(50)})
    main([names[0], str(many / "export")])
    assert f"50 settings differ; {MOST_SETTINGS} are shown, --output FILE has all" in capsys.readouterr().out


def test_the_page_on_comparing_holds_in_python(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (root / "docs/compare.md").read_text("utf-8"), flags=re.DOTALL)
    for name in ("a", "b"):
        write_run(tmp_path / f"outputs/demo_stage1/{name}", 1.0, 1.0, seed=name)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "seed ('a', 'b')" in capsys.readouterr().out and (tmp_path / "comparison.html").is_file()


def test_what_is_no_run_is_one_line(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    bad_yaml, bad_results = write_run(tmp_path / "a", 1.0, 1.0), write_run(tmp_path / "b", 1.0, 1.0, {"steps": 20.0})
    (bad_yaml / "config.yaml").write_text("a: ${oc.env:HOME}\n")
    (bad_results / "results.json").write_text((bad_results / "results.json").read_text().replace("20.0", "30.0"))
    first = str(folders[0])
    for names, words in (
        ([first], "a comparison needs two different runs or more, got 1"),
        ([first, f"{first}/"], "a comparison needs two different runs or more, got 1"),
        ([first, "gone"], "there is no folder .*gone; give run folders"),
        ([first, "empty"], "empty holds neither metrics.csv nor results.json, so it is no run"),
        ([first, "a"], r"config.yaml cannot be read \(line 1 holds an interpolation"),
        ([first, "b"], "results.json"),
        ([first, "last:demo_stage1"], "last:demo_stage1: no run under .*/outputs/demo_stage1 has a checkpoint"),
        ([], "the following arguments are required: run"),
    ):
        assert run_command(main, names) == 2
        out, err = capsys.readouterr()
        assert len(err.splitlines()) == 1 and re.search(words, err) and not out


def test_the_run_folder_is_no_part_of_other_values(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("paths: {run_dir: runs}\ndata: {a: /data/trainruns/a, b: runs/x, c: runs}\n")
    assert runs._settings(tmp_path) == {
        "paths.run_dir": OWN_FOLDER, "data.a": "/data/trainruns/a", "data.b": f"{OWN_FOLDER}/x", "data.c": OWN_FOLDER
    }  # fmt: skip
