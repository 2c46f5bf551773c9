"""Folders that bring code of their own: it never runs, nobody is asked, and what needs it is refused in one line."""

from __future__ import annotations

import ast
import logging
import shutil
from pathlib import Path
from typing import Any

import foreign_code
import pytest
from foreign_code import MARKER, change_json, folder_with_code
from foreign_models import DEMO, save_theirs, their_model
from tiny_blip import write_blip
from tiny_clip import tiny_clip
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BlipForConditionalGeneration, OPTConfig
from warm_process import WarmProcess

from blip2_train import from_transformers
from blip2_train.errors import CheckpointMismatch
from blip2_train.from_transformers import load_config, load_model, refuse_remote_code

PACKAGE = Path(from_transformers.__file__).parent
METHODS = {"from_pretrained", "from_config", "for_model"}
REFUSED = "cannot be read without Python code that lies beside it"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A language model, a BLIP-2, a CLIP and a BLIP, all of which ask for code."""
    folder = tmp_path_factory.mktemp("code")
    originals = {
        "blip2": save_theirs(their_model("opt"), "opt", folder / "plain_blip2"),
        "clip": tiny_clip(folder / "plain_clip"),
        "blip": write_blip(folder / "plain_blip", BlipForConditionalGeneration),
    }
    language = folder_with_code(DEMO / "opt", folder / "language", model_type="nobodys")
    return [language, *(folder_with_code(original, folder / name) for name, original in originals.items())]


@pytest.mark.slow
@pytest.mark.parametrize("standard_input", ["closed", "yes"])
def test_code_beside_a_model_is_never_run(folders: list[Path], standard_input: str) -> None:
    process = WarmProcess([foreign_code.__file__, standard_input, *map(str, folders)])
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert not (folders[0].parent / MARKER).exists()
    results = dict(line.split(": ", 1) for line in printed.splitlines())
    for way in ("architecture", "build", "tokenizer"):
        assert results.pop(way).startswith(f"CheckpointMismatch: {folders[0]} {REFUSED}")
    assert "not a BERT tokenizer" in results.pop("text tokenizer")
    assert results == dict.fromkeys(["blip2 config", "blip2 tokenizer", "blip2", "clip", "blip"], "opened")


def test_the_code_would_run_if_it_were_let(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders of these tests are of the kind that is meant."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = folder_with_code(DEMO / "opt", tmp_path / "language", model_type="nobodys")
    with pytest.raises(Exception, match=r"has no attribute|object"):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert (tmp_path / MARKER).exists()


def test_where_another_library_calls_transformers_there_is_no_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = folder_with_code(DEMO / "opt", tmp_path / "language", model_type="nobodys")
    with pytest.raises(CheckpointMismatch, match=REFUSED), refuse_remote_code(folder):
        AutoTokenizer.from_pretrained(folder)
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "key",
    ["attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"],
)
def test_an_implementation_of_the_hub_is_refused(tmp_path: Path, key: str) -> None:
    """By every name, whether or not this transformers takes it from a file."""
    folder = Path(shutil.copytree(DEMO / "opt", tmp_path / "language"))
    change_json(folder / "config.json", **{key: "somebody/kernel"})
    for load in (
        lambda: load_config(AutoConfig, folder),
        lambda: load_model(AutoModelForCausalLM, folder),
    ):
        with pytest.raises(CheckpointMismatch, match=r"implementation 'somebody/kernel', which is code of the hub"):
            load()
    change_json(folder / "config.json", **{key: "flash_attention_2"})
    assert load_config(AutoConfig, folder)._attn_implementation is None


@pytest.mark.parametrize(
    "values",
    [
        {"attn_implementation": {"text_config": "somebody/kernel"}},
        {"text_config": {"_attn_implementation": "somebody/kernel"}},
        {"text_config": {"inner_config": {"experts_implementation": {"": "somebody/kernel"}}}},
    ],
)
def test_so_is_one_that_lies_deeper(tmp_path: Path, values: dict[str, Any]) -> None:
    config = Path(shutil.copytree(DEMO / "opt", tmp_path / "language")) / "config.json"
    change_json(config, **values)
    with pytest.raises(CheckpointMismatch, match=r"which is code of the hub and is never run; take \w+ out of"):
        load_config(AutoConfig, config.parent)


@pytest.mark.slow
def test_no_call_goes_by() -> None:
    """Every call that could run code beside a model's files is in the one module that says it must not."""
    beside, inside = [], []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in METHODS and path != Path(from_transformers.__file__):
                beside.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if node.func.attr in {"from_pretrained", "from_config"} and options.get("trust_remote_code") != "False":
                    inside.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert [location for location in beside if not location.startswith("cli/other_transformers/reading.py:")] == []
    assert inside == []


def test_what_transformers_tells_of_a_file_steers_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(DEMO / "opt", tmp_path / "language"))
    change_json(folder / "config.json", model_type="evil\x1b[2J")
    load_config(OPTConfig, folder)
    handlers = logging.getLogger("transformers").handlers
    record = logging.LogRecord("transformers", logging.WARNING, "", 1, "a model of type evil\x1b[2J", (), None)
    assert handlers and all("\x1b[2J" not in handler.format(record) for handler in handlers)
    assert "\x1b[2J" not in capfd.readouterr().err
