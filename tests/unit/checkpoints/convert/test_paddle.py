"""Reading PaddleNLP's pickles of arrays, and refusing what such a file could hide."""

from __future__ import annotations

import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_models import DEMO, save_theirs, their_model
from published_tokenizers import FAMILIES
from torch import nn

from blip2_train.checkpoints.convert.array_pickle import read_array_pickle
from blip2_train.checkpoints.convert.key_map import PADDLE_OPT
from blip2_train.checkpoints.convert.paddle import WEIGHTS, read_paddle
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.config.compose import compose
from blip2_train.errors import CheckpointMismatch


def paddle_arrays(model: nn.Module, paddle_names: bool) -> dict[str, Any]:
    """A model's weights in Paddle's layout: linear weights as (in, out), bfloat16 as unsigned integers.

    Args:
        model: Of transformers.
        paddle_names: Whether the language model has PaddleNLP's own names, as its classes give them.
    """
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    arrays: dict[str, Any] = {}
    for key, tensor in model.state_dict().items():
        head = key == "language_model.lm_head.weight" and paddle_names  # Paddle's head is a parameter of its own class
        turned = tensor.T if key in linear and not head else tensor
        array = turned.contiguous().view(torch.uint16) if tensor.dtype == torch.bfloat16 else turned.contiguous()
        arrays[(PADDLE_OPT.to_theirs(key) or key) if paddle_names else key] = array.numpy().copy()
    return arrays


def paddle_folder(
    tmp_path: Path, paddle_names: bool = True, protocol: int = 4, **changes: Any
) -> tuple[nn.Module, Path, dict[str, Any]]:
    """A folder as PaddleNLP keeps it: configuration, tokenizer, and the pickle."""
    theirs = their_model("opt")
    folder = save_theirs(theirs, "opt", tmp_path / "paddle")
    (folder / "model.safetensors").unlink()
    arrays = paddle_arrays(theirs, paddle_names)
    notes = {"StructuredToParameterName@@": {key: f"parameter_{i}" for i, key in enumerate(arrays)}}
    content = {**arrays, **notes, **changes}
    (folder / WEIGHTS).write_bytes(pickle.dumps(content, protocol))
    return theirs, folder, arrays


@pytest.mark.slow
@pytest.mark.parametrize(("paddle_names", "protocol"), [(True, 4), (False, 4), (True, 2), (False, 5)])
def test_a_pickle_of_arrays_is_read_like_transformers_weights(
    paddle_names: bool, protocol: int, tmp_path: Path
) -> None:
    theirs, folder, arrays = paddle_folder(tmp_path, paddle_names, protocol)
    (name, array), *_ = arrays.items()
    tuples = {key: (f"{key}.w_0", value) for key, value in arrays.items()}
    expected = open_pretrained(save_theirs(theirs, "opt", tmp_path / "theirs")).model.state_dict()
    for source in (folder, folder / WEIGHTS):
        opened = open_pretrained(source)
        assert opened.source == "Paddle Blip2ForConditionalGeneration"
        state = opened.model.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)
        assert opened.held == {"vision_model", "language_model"}
        assert opened.processor.language_tokenizer.end_id == theirs.config.text_config.eos_token_id
        (folder / WEIGHTS).write_bytes(pickle.dumps(tuples, protocol))  # as Paddle's own pickles may have them
    assert name in arrays and array.size


@pytest.mark.slow
def test_a_file_brings_a_run_the_tokenizer_that_lies_beside_it(tmp_path: Path) -> None:
    """A run takes the file as its language model, but no tokenizer can be read from it."""
    _, folder, _ = paddle_folder(tmp_path)
    config = compose(["experiment=caption_coco_opt_2.7b", f"init_from={folder / WEIGHTS}"])
    assert config.model.language.name == str(folder / WEIGHTS) and config.collator.name == str(folder)
    assert compose(["experiment=caption_coco_opt_2.7b", f"init_from={folder}"]).collator.name == str(folder)


def test_a_tokenizer_as_published(tmp_path: Path) -> None:
    """`</s>` is start, end and unknown token of every published OPT."""
    _, folder, _ = paddle_folder(tmp_path)
    for file in folder.glob("*token*.json"):
        file.unlink()
    FAMILIES["opt"].write(folder)
    tokenizer = open_pretrained(folder).processor.language_tokenizer
    assert tokenizer.tokenizer.unk_token == "</s>"
    assert tokenizer.start_ids == [2] and tokenizer.end_ids == tokenizer.text_ids("\n")


def test_bfloat16(tmp_path: Path) -> None:
    theirs = their_model("opt").to(torch.bfloat16)
    folder = save_theirs(theirs, "opt", tmp_path / "paddle")
    (folder / "model.safetensors").unlink()
    (folder / WEIGHTS).write_bytes(pickle.dumps(paddle_arrays(theirs, True), 4))
    model = open_pretrained(folder).model
    assert model.language_model.dtype == model.vision_model.tower.pos_embed.dtype == torch.bfloat16
    assert model.query_tokens.dtype == torch.float32
    weight = theirs.language_model.model.decoder.layers[0].fc1.weight
    assert torch.equal(model.language_model.model.decoder.layers[0].fc1.weight, weight)


@pytest.mark.slow
def test_the_released_model_is_known_by_its_sizes(tmp_path: Path) -> None:
    """OPT-2.7B's width, without any configuration beside the file; few layers, so that it fits here."""
    width, words = 2560, 60
    decoder = "language_model.opt.decoder"
    arrays = {
        "language_model.opt.embeddings.word_embeddings.weight": np.zeros((words, width), np.float16),
        "language_model.opt.embeddings.position_embeddings.weight": np.zeros((34, width), np.float16),
        f"{decoder}.layers.0.linear1.bias": np.zeros(8, np.float16),
        "language_projection.bias": np.zeros(width, np.float16),
    }
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(arrays, 4))
    language = read_paddle(tmp_path / "x.pdparams", "x", None).description["language"]
    assert language["name"] == "facebook/opt-2.7b" and language["end_token"] == "\n"
    assert language["architecture"]["hidden_size"] == width and language["architecture"]["ffn_dim"] == 8
    assert language["architecture"]["num_hidden_layers"] == 1 and language["architecture"]["vocab_size"] == words
    narrow = {key: array[..., :100] for key, array in arrays.items()}
    (tmp_path / "y.pdparams").write_bytes(pickle.dumps(narrow, 4))
    with pytest.raises(CheckpointMismatch, match="100 wide, which is none of the release"):
        read_paddle(tmp_path / "y.pdparams", "y", None)
    with pytest.raises(CheckpointMismatch, match="lacks"):
        open_pretrained(tmp_path / "y.pdparams", language_model=str(DEMO / "opt"))


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    _, folder, arrays = paddle_folder(tmp_path)
    key = "language_model.opt.decoder.layers.1.linear2.weight"

    def opened(**changes: Any) -> Any:
        content = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
        (folder / WEIGHTS).write_bytes(pickle.dumps(content, 4))
        return open_pretrained(folder)

    with pytest.raises(CheckpointMismatch, match=rf"{key} has shape \(160, 639\), the model needs \(160, 640\)"):
        opened(**{key: arrays[key][:639]})
    with pytest.raises(CheckpointMismatch, match=f"lacks {key};"):
        opened(**{key: None})
    with pytest.raises(CheckpointMismatch, match=r"1 keys that are not known here, first opt.strange"):
        opened(**{"opt.strange": arrays[key]})
    with pytest.raises(CheckpointMismatch, match="epoch is no array"):
        opened(epoch=3)


class Call:
    """A pickle of it calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "evil",
    [
        Call(os.system, "touch evil-was-here"),
        Call(eval, "open('evil-was-here', 'w')"),
        Call(np.load, "somewhere.npy"),
        Call(getattr, dict, "get"),
        Call(torch.zeros, 3),
        Path("evil"),
        np.array([{"an": "object"}], dtype=object),
        np.array(["text"]),
        np.float32(1.0),
        Call(bytes, 10),
    ],
    ids=lambda evil: getattr(evil, "call", [type(evil)])[0].__name__,
)
def test_anything_but_arrays_is_refused_and_not_run(
    evil: Any, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.pdparams"
    file.write_bytes(pickle.dumps({"a": np.zeros(3), "b": evil}, protocol))
    with pytest.raises(CheckpointMismatch, match=r"x.pdparams cannot be read as a pickle of arrays") as caught:
        read_array_pickle(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil-was-here").exists()


def test_damaged_pickles_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pdparams"
    whole = pickle.dumps({"a": np.arange(1000.0)}, 4)
    for content in (b"", b"\x80\x04", whole[:500], whole[:-1], b"\x80\x04" + b"garbage" * 9):
        file.write_bytes(content)
        with pytest.raises(CheckpointMismatch):
            read_array_pickle(file)
    state = (1, (10**9,), np.dtype("f8"), False, b"1234")  # a shape that its bytes do not have
    forged = pickle.dumps({"a": np.zeros(1)}, 2)
    assert any(op.name == "BUILD" for op, *_ in pickletools.genops(forged))
    file.write_bytes(pickle.dumps({"a": Built(state)}, 2))
    with pytest.raises(CheckpointMismatch):
        read_array_pickle(file)


class Built:
    """An array with a state of one's own."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        reconstruct, arguments, _ = np.zeros(1).__reduce__()
        return reconstruct, arguments, self.state


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_all_kinds(protocol: int, tmp_path: Path) -> None:
    arrays = OrderedDict(
        rows=np.arange(6, dtype=np.float32).reshape(2, 3),
        columns=np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        scalar=np.array(2.5, dtype=np.float16),
        nothing=np.zeros((0, 4)),
        swapped=np.arange(3, dtype=">f4"),
        truth=np.array([True, False]),
        strided=np.arange(10)[::3],
    )
    file = tmp_path / "x"
    file.write_bytes(pickle.dumps(arrays, protocol))
    opened = read_array_pickle(file)
    assert list(opened) == list(arrays)
    for name, array in arrays.items():
        assert opened[name].dtype == array.dtype and opened[name].shape == array.shape
        assert np.array_equal(opened[name], array)
