"""Weights of a Dinov2 in an ONNX graph, whose matrices have no names, compute as a tower what Dinov2 computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from real_parts.tower import convert_tower, dinov2_state
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import VisionTower

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 42, "patch_size": 14}
OLDER = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value", "o_proj": "output.dense"}
"""Names in transformers 4, with which the package's graph was exported."""
POSITIONS = "embeddings.position_embeddings"


@pytest.fixture
def dinov2() -> Dinov2Model:
    """A small Dinov2 no two of whose tensors are alike."""
    model = Dinov2Model(Dinov2Config(**SIZES)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def write_graph(model: Dinov2Model, path: Path, without: str = "", matrix: bool = True) -> None:
    """A graph as torch's exporter leaves it: matrices transposed and nameless, positions split, in another order.

    Args:
        model: The model.
        path: The file.
        without: Name of a weight that is left out.
        matrix: Whether a product is with a matrix of the file.
    """
    arrays: dict[str, Any] = {}
    nodes, state = [], {}
    for name, tensor in model.state_dict().items():
        for newer, older in OLDER.items():
            name = name.replace(f".attention.{newer}.", f".attention.{older}.")
        if name != without:
            state[name] = tensor.numpy()
    for number, (name, array) in enumerate(sorted(state.items())):
        bias = f"{name.removesuffix('.weight')}.bias"
        if name == POSITIONS:
            arrays["onnx::Reshape_2"], arrays["onnx::Concat_1"] = array[:, 1:], array[:, :1]
        elif array.ndim == 2 and name.endswith(".weight"):
            arrays[f"onnx::MatMul_{number}"] = array.T
            product = [f"in_{number}", f"onnx::MatMul_{number}" if matrix else "computed"]
            nodes.append(onnx.helper.make_node("MatMul", product, [f"product_{number}"]))
            nodes.append(onnx.helper.make_node("Add", [f"backbone.{bias}", f"product_{number}"], [f"out_{number}"]))
        elif name != "embeddings.mask_token":
            arrays[f"backbone.{name}"] = array
    arrays["decoder.final_conv.weight"] = state["embeddings.cls_token"]
    tensors = [onnx.numpy_helper.from_array(array.copy(), name) for name, array in arrays.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "export", [], [], tensors)), path)


def test_the_tower_computes_what_the_model_computes(dinov2: Dinov2Model, tmp_path: Path) -> None:
    write_graph(dinov2, tmp_path / "model.onnx")
    (tmp_path / "METADATA").write_text("about the package")
    convert_tower({name: tmp_path / name for name in ("model.onnx", "METADATA")}, tmp_path)
    config = VisionConfig(
        name="vit_small_patch14_dinov2", weights=str(tmp_path / "model.safetensors"), image_size=42,
        overrides={"embed_dim": 24, "depth": 3, "num_heads": 3},
    )  # fmt: skip
    tower = VisionTower(config)
    assert load_tower(tower, config).fresh == ()
    images = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        states = dinov2(images, output_hidden_states=True).hidden_states
    torch.testing.assert_close(tower(images), states[2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(states[2], states[3], atol=0.1)


def test_what_is_no_such_graph_is_named(dinov2: Dinov2Model, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    layer = "encoder.layer.1.mlp.fc1"
    write_graph(dinov2, path, without=f"{layer}.weight")
    with pytest.raises(CheckpointMismatch, match=rf"the bias {layer}\.bias is added to no product with a matrix"):
        dinov2_state(path)
    write_graph(dinov2, path, matrix=False)
    with pytest.raises(CheckpointMismatch, match=r"the product below backbone\..* is with no matrix of the file"):
        dinov2_state(path)
    write_graph(dinov2, path, without=POSITIONS)
    with pytest.raises(CheckpointMismatch, match="of a class token and of one grid were expected, got none"):
        dinov2_state(path)
