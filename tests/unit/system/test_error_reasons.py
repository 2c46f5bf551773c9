"""A refused pickle is told as refused, without the advice of other libraries to load it all the same."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import DEMO, save_theirs, their_model
from timm.models import load_state_dict as timm_load_state_dict

from blip2_train.checkpoints.files import read_file, read_weights
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.checkpoints.training_checkpoints import read_training_state
from blip2_train.errors import Blip2TrainError
from blip2_train.from_transformers import load_model
from blip2_train.system.error_reasons import is_refused_pickle, reason_of

ADVICE = ("weights_only", "safe_globals", "add_safe", "allowlist", "trust", "file an issue", "In PyTorch", "\x1b")


class Called:
    """Becomes, in a pickle, a call that would make a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "was_run"


def refused(read: Callable[[], object], marker: Path) -> str:
    with pytest.raises(Blip2TrainError) as caught:
        read()
    message = str(caught.value)
    assert not marker.exists()
    assert not [word for word in ADVICE if word in message], message
    assert "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("form", ["zip", "old", "plain"])
@pytest.mark.parametrize("read", [read_file, read_weights, read_training_state])
def test_a_refused_pickle_is_reported_as_refused(
    tmp_path: Path, marker: Path, form: str, read: Callable[[Path], object]
) -> None:
    file = tmp_path / "weights.pt"
    content = {"model": {"Qformer.x": Called(marker)}}
    if form == "plain":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    message = refused(lambda: read(file), marker)
    if read is not read_training_state and form != "plain":
        assert message.startswith(f"{file} is refused: it is a pickle that names posix.system, which would be called")


def test_a_folder_with_a_pickle_is_refused(tmp_path: Path, marker: Path) -> None:
    folder = save_theirs(their_model("opt"), "opt", tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    torch.save({"query_tokens": Called(marker)}, folder / "pytorch_model.bin")
    assert "names posix.system" in refused(lambda: open_pretrained(folder), marker)


def test_what_other_libraries_say_of_it_loses_their_advice(tmp_path: Path, marker: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": Called(marker)}, file)
    (tmp_path / "config.json").write_bytes((DEMO / "opt" / "config.json").read_bytes())
    from transformers import OPTForCausalLM

    for load in (lambda: timm_load_state_dict(str(file)), lambda: load_model(OPTForCausalLM, tmp_path)):
        with pytest.raises(Exception) as caught:  # whatever the library raises
            load()
        assert is_refused_pickle(caught.value)
        assert reason_of(caught.value).startswith("it is a pickle that names posix.system, which")
    assert not marker.exists()


def test_a_damaged_file_is_not_reported_as_an_attack(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(9)}, file)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(Blip2TrainError, match=r"cannot be read as weights .* damaged, cut short, or of another kind"):
        read_weights(file)
