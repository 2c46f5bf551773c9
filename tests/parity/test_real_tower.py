"""The real tower computes, after its conversion, what onnxruntime computes with the graph that the package ships."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from real_weights import PARTS, needs, original

from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import VisionTower, normalisation

pytestmark = needs("vit_s", "onnx", "onnxruntime")


def config(size: int, dropped: int = 1) -> VisionConfig:
    weights = str(PARTS / "vit_s" / "model.safetensors")
    return VisionConfig(name="vit_small_patch14_dinov2", weights=weights, image_size=size, dropped_blocks=dropped)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A session of onnxruntime that gives the states behind block 11 of 12 and behind the last, at any image size."""
    import onnx
    import onnxruntime

    model = onnx.load(original("vit_s", ".onnx", tmp_path_factory.mktemp("onnx")))
    del model.graph.output[:]
    for block in (10, 11):
        name = f"/backbone/encoder/layer.{block}/Add_1_output_0"
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    for dimension, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[dimension].dim_param = name
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("size", [112, 224])
@pytest.mark.parametrize("dropped", [1, 0])
def test_features_are_those_of_the_graph(size: int, dropped: int, graph: Any) -> None:
    """Its positions are for 518 pixels: both resample them to the grid of 112 and of 224."""
    weights = str(PARTS / "vit_s" / "model.safetensors")
    config = VisionConfig(name="vit_small_patch14_dinov2", weights=weights, image_size=size, dropped_blocks=dropped)
    tower = VisionTower(config)
    report = load_tower(tower, config)
    assert report.fresh == () and len(report.ignored) == (16 if dropped else 2)
    images = torch.randn(2, 3, size, size)
    theirs = graph.run(None, {"input_image": images.numpy()})[1 - dropped]
    difference = np.abs(tower(images).numpy() - theirs).max()
    assert theirs.shape == (2, (size // 14) ** 2 + 1, 384) and np.abs(theirs).max() > 5
    assert difference <= 1e-4, difference


def test_the_normalisation_is_imagenets() -> None:
    weights = str(PARTS / "vit_s" / "model.safetensors")
    config = VisionConfig(name="vit_small_patch14_dinov2", weights=weights, image_size=112)
    assert normalisation(config) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
