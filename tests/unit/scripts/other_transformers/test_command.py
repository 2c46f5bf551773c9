"""Two versions of transformers on one export: the same is told as the same, and what differs ends with 1."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
from foreign_models import our_model
from other_transformers import command, comparison, reading

from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.errors import ConfigError

CAPTIONS = {
    "transformers": "4.57.6", "tokenizer": "PreTrainedTokenizerFast", "special tokens": ["</s>", "<pad>"],
    "keys that do not fit": [], "captions": ["a cat", "a dog"] * comparison.IMAGES,
}  # fmt: skip
SCORES = {key: value for key, value in CAPTIONS.items() if key != "captions"} | {
    "scores": {"itc": [[0.1, 0.2]] * comparison.IMAGES, "itm": [[0.3, 0.1]] * comparison.IMAGES}
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, processor, manifest = our_model("opt")
    return write_huggingface(tmp_path_factory.mktemp("export") / "opt", model, processor, manifest)


@pytest.mark.slow
def test_one_export_is_read_on_both_sides(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By this process, so that nothing has to be installed."""
    monkeypatch.setattr(comparison, "_run", lambda words: reading.main(*words[2:]))
    command.main([str(folder), "--python", sys.executable])
    printed = capsys.readouterr().out
    assert str(folder) in printed and "16 captions" in printed and "the same" in printed and "NOT" not in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "change", "words"),
    [
        (CAPTIONS, {"captions": ["a cat", "a fox"] * comparison.IMAGES}, "NOT the same"),
        (CAPTIONS, {"keys that do not fit": ["lm_head.weight"]}, "weights that do not fit: lm_head.weight"),
        (CAPTIONS, {"special tokens": ["</s>"]}, "special tokens"),
        (SCORES, {"scores": {"itc": [[0.1, 0.3]] * 8, "itm": [[0.3, 0.1]] * 8}}, "at most 1.0e-01 apart"),
    ],
)
def test_what_differs_ends_with_1(
    first: dict[str, Any],
    change: dict[str, Any],
    words: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = [copy.deepcopy(first), copy.deepcopy(first)]
    monkeypatch.setattr(comparison, "_read", lambda *_: answers.pop(0))
    command.main([str(folder), "--python", "python"])
    answers += [copy.deepcopy(first) | change, copy.deepcopy(first)]
    with pytest.raises(SystemExit, match="1"):
        command.main([str(folder), "--python", "python"])
    assert words.rpartition("|")[2] in capsys.readouterr().out


def test_a_program_that_fails_is_one_line(folder: Path) -> None:
    with pytest.raises(ConfigError, match="failed: "):
        command.main([str(folder), "--python", "/bin/false"])
