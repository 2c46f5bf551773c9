"""What `scripts/house.py` counts, on small sources made here; and counts of this checkout that stay at 0."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from house.command import main
from house.dialect import KEPT_NAMES, NAMES, PROSE
from house.imports import Sources, between, circles, upward
from house.sizes import room_of, sizes_below
from house.watching import SecondStep
from house.words import uses_below, uses_in

from blip2_train.errors import ConfigError

LAYERS = 'LAYER = {"types": 0, "models": 1, "data": 1, "training": 3}\n'


def checkout(folder: Path, **files: str) -> Path:
    """A package of these modules: `models__tower` is `models/tower.py`."""
    for name, text in files.items():
        path = folder / "blip2_train" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (folder / "tests" / "unit").mkdir(parents=True)
    (folder / "tests" / "unit" / "test_layers.py").write_text(LAYERS, "utf-8")
    return folder


def words(text: str, path: str = "blip2_train/models/x.py") -> dict[tuple[str, str], int]:
    return dict(Counter((use.kind, use.word) for use in uses_in(path, text)))


def test_identifiers_are_split_at_underscores_and_capitals() -> None:
    text = "def what_is_said(found_rows, of):\n    x = FoundFile(told=f'{asked}')\n    return x.place_of, placeholder\n"
    expected = ("said", "found", "found", "told", "asked", "place")
    assert words(text) == {("names", word): count for word, count in Counter(expected).items()}


@pytest.mark.parametrize(
    "name",
    [
        *sorted(KEPT_NAMES),
        "FileNotFoundError",
        "is_not_found",
        "in_place",
        "word_pieces",
        "_picture_column",
        "pin_memory",
    ],
)
def test_names_that_stay_are_not_counted(name: str) -> None:
    assert words(f"{name} = '{name}'\n") == {}


def test_a_module_is_named_by_its_path() -> None:
    assert words("", "blip2_train/training/lost_contact.py") == {("names", "lost_contact"): 1}


def test_memory_is_ruled_out_where_it_is_not_bytes() -> None:
    assert words("memory = 1\n", "blip2_train/objectives/matching.py") == {("names", "memory"): 1}
    assert words("memory = 1\n", "blip2_train/models/memory.py") == {}


def test_prose_is_found_in_docstrings_comments_and_strings() -> None:
    text = '"""A picture.\n\nTwo pictures."""\n# a handover\nlog("lost contact, see picture_column and `pictures`")\n'
    assert words(text) == {
        ("docstrings", "picture"): 2,
        ("comments", "handover"): 1,
        ("strings", "lost contact"): 1,
    }
    lines = [use.line for use in uses_in("x.py", text)]
    assert sorted(lines) == [1, 3, 4, 5]


def test_pages_and_yaml_are_read_as_prose() -> None:
    assert words("the picture\n", "docs/a.md") == {("pages", "picture"): 1}
    assert words("a: 1  # a picture\nprompt: a picture of\n", "configs/a.yaml") == {("yaml", "picture"): 1}


def test_circles_count_lazy_imports_and_those_for_types(tmp_path: Path) -> None:
    root = checkout(
        tmp_path,
        types="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from blip2_train.data.a import A\n",
        data__a="import blip2_train.data.b\nclass A: ...\n",
        data__b="def f():\n    from blip2_train import types\n",
        models__tower="from blip2_train.types import T\n",
    )
    graph = Sources(root).graph()
    names = {"blip2_train.types", "blip2_train.data.a", "blip2_train.data.b"}
    assert [set(group) for group in circles(graph)] == [names]
    assert [set(group) for group in circles(between(graph, 2))] == [{"blip2_train.types", "blip2_train.data"}]
    assert upward(graph, Sources(root).layers()) == [("blip2_train.types", "blip2_train.data.a")]


def test_rooms_of_one_layer_do_not_import_each_other(tmp_path: Path) -> None:
    root = checkout(tmp_path, models__tower="import blip2_train.data.a\n", data__a="")
    assert upward(Sources(root).graph(), Sources(root).layers()) == [("blip2_train.models.tower", "blip2_train.data.a")]


def test_isinstance_counts_models_outside_their_package(tmp_path: Path) -> None:
    checks = "isinstance(x, Tower)\nisinstance(x, (int, Small))\nisinstance(x, Config)\nisinstance(x, int)\n"
    imports = "from blip2_train.models.tower import Config, Small, Tower\n"
    tower = "class Tower(nn.Module): ...\nclass Small(Tower): ...\nclass Config: ...\n"
    root = checkout(tmp_path, models__tower=tower, models__other=imports + checks, training__run=imports + checks)
    assert Sources(root).model_checks() == [("blip2_train.training.run", 2), ("blip2_train.training.run", 3)]


def test_sizes_have_a_row_per_room_and_leave_out_empty_files(tmp_path: Path) -> None:
    root = checkout(tmp_path, models__a="1\n2\n", models__b="1\n2\n3\n4\n", models____init__="", types="1\n")
    rows = {size.room: size[1:] for size in sizes_below(root)}
    assert rows["blip2_train/models"] == (2, 6, 3, 4)
    assert rows["blip2_train, files"] == (1, 1, 1, 1)
    assert rows["blip2_train in all"] == (3, 7, 2, 4)
    assert room_of(Path("data/shards/tar.py")) == "data/shards" and room_of(Path("models/x/y.py")) == "models"


def test_only_the_second_step_is_watched(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    functions = {}
    for name in ("first", "second", "third"):
        path = tmp_path / "package" / f"{name}.py"
        exec(compile("def run(): pass\n", str(path), "exec"), namespace := {})
        functions[name] = namespace["run"]
    watch = SecondStep(str(tmp_path / "package"), str(tmp_path / "files.json"))
    for step, name in enumerate(functions, 1):
        functions[name]()
        watch.on_train_batch_end(type("Trainer", (), {"global_step": step}))
    assert (tmp_path / "files.json").read_text() == '["second.py"]'


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no checkout"):
        main([f"root={tmp_path}"])


def test_the_command_prints_every_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tower = "class Tower(nn.Module): ...\n"
    run = "from blip2_train.models.tower import Tower\nisinstance(told, Tower)\n"
    main([f"root={checkout(tmp_path, models__tower=tower, training__run=run)}", "step=false", "list=true"])
    printed = capsys.readouterr().out
    for line in ("lines of Python in the wheel: 3", "circles of modules: 0", "isinstance of models outside models/: 1"):
        assert line in printed
    assert "blip2_train/training/run.py:2: names: told: told" in printed
    assert "blip2_train/models " in printed and "training step" not in printed


def test_no_rule_is_given_twice() -> None:
    assert len({rule.word for rule in NAMES}) == len(NAMES) and len({rule.word for rule, _ in PROSE}) == len(PROSE)


@pytest.fixture(scope="module")
def sources(root: Path) -> Sources:
    return Sources(root)


@pytest.mark.slow
def test_no_import_points_up_here(sources: Sources) -> None:
    assert upward(sources.graph(), sources.layers()) == [] and circles(sources.graph()) == []
    assert circles(between(sources.graph(), 3)) == [], "rooms inside a room import each other"


@pytest.mark.slow
def test_no_word_of_the_old_dialect_comes_back(root: Path) -> None:
    """Names in the tests are counted by the command only."""
    uses = uses_below(root)
    assert [use for use in uses if use.kind != "names" or not use.path.startswith("tests/")] == []


@pytest.mark.slow
def test_few_ask_for_the_class_of_a_model(sources: Sources) -> None:
    assert len(sources.model_checks()) <= 8
