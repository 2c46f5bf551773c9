"""A vision transformer of DINOv2's shape from an ONNX graph that transformers' Dinov2 was exported to.

The exporter keeps the names of biases, norms, scales and of the patch embedding. The matrices of linear layers it
transposes and leaves nameless, and it splits the position embeddings into those of class token and grid. Here a matrix
is found by its bias: the bias is added to a product, and the matrix is what the product multiplies by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blip2_train.errors import CheckpointMismatch
from blip2_train.system.extras import import_extra
from blip2_train.system.shared_files import share_as_usual

ARCHITECTURE = "vit_small_patch14_dinov2"
"""timm's name of the network."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixel values 0 … 1 that the package's own code hands to the graph: ImageNet's."""
_BACKBONE = "backbone."
_TIMM_NAMES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
"""Names of transformers' Dinov2, and what timm calls the same."""
_QUERY = re.compile(r"(blocks\.\d+\.)attention\.attention\.query\.(weight|bias)")

Arrays = dict[str, np.ndarray[Any, Any]]


def convert_tower(files: Mapping[str, Path], folder: Path) -> None:
    """Write `model.safetensors` under timm's names and timm's `config.json` into `folder`.

    Raises:
        CheckpointMismatch: if the graph is not such an export.
        ConfigError: if the package onnx is not installed.
    """
    from safetensors.numpy import save_file

    (path,) = (path for name, path in files.items() if name.endswith(".onnx"))
    state = timm_state(dinov2_state(path))
    save_file(state, folder / "model.safetensors")
    share_as_usual(folder / "model.safetensors")
    about = {"num_classes": 0, "mean": MEAN, "std": STD}
    config = {"architecture": ARCHITECTURE, "num_classes": 0, "num_features": state["cls_token"].shape[-1]}
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_cfg": about}, indent=1) + "\n", "utf-8")
    (path,) = (path for name, path in files.items() if name.endswith("METADATA"))
    (folder / "PACKAGE.md").write_bytes(path.read_bytes())


def dinov2_state(path: Path) -> Arrays:
    """The weights of the backbone of an ONNX file, under the names of transformers' Dinov2 and in its layouts.

    Raises:
        CheckpointMismatch: if a bias has no matrix, or the positions are not those of one class token and one grid.
        ConfigError: if the package onnx is not installed.
    """
    onnx = import_extra("onnx", "reading the vision tower's ONNX file")
    graph = onnx.load(path).graph
    arrays: Arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = {name.removeprefix(_BACKBONE): array for name, array in arrays.items() if name.startswith(_BACKBONE)}
    for bias, matrix in _matrices(graph, arrays, path):
        state[f"{bias.removeprefix(_BACKBONE).removesuffix('.bias')}.weight"] = arrays[matrix].T
    without = [name for name in state if name.endswith(".bias") and f"{name.removesuffix('.bias')}.weight" not in state]
    if without:
        raise CheckpointMismatch(f"{path.name}: the bias {without[0]} is added to no product with a matrix")
    width = state["embeddings.cls_token"].shape[-1]
    state["embeddings.position_embeddings"] = _positions(arrays, width, path)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in state.items()}


def _matrices(graph: Any, arrays: Arrays, path: Path) -> Iterator[tuple[str, str]]:
    """Names of the biases of linear layers and of their matrices."""
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        biases = [name for name in node.input if name.startswith(_BACKBONE) and name.endswith(".bias")]
        products = [makers[name] for name in node.input if name in makers and makers[name].op_type == "MatMul"]
        if len(biases) == len(products) == 1:
            (product,) = products
            if (matrix := product.input[1]) not in arrays:
                raise CheckpointMismatch(f"{path.name}: the product below {biases[0]} is with no matrix of the file")
            yield biases[0], matrix


def _positions(arrays: Arrays, width: int, path: Path) -> np.ndarray[Any, Any]:
    """Position embeddings `(1, 1 + cells, width)` from the two nameless tensors of that width."""
    parts = [
        array
        for name, array in arrays.items()
        if not name.startswith((_BACKBONE, "decoder.")) and array.ndim == 3 and array.shape[::2] == (1, width)
    ]
    parts.sort(key=lambda array: array.shape[1])
    if len(parts) != 2 or parts[0].shape[1] != 1:
        shapes = ", ".join(str(part.shape) for part in parts) or "none"
        raise CheckpointMismatch(
            f"{path.name}: position embeddings of a class token and of one grid were expected, got {shapes}"
        )
    return np.concatenate(parts, axis=1)


def timm_state(state: Mapping[str, np.ndarray[Any, Any]]) -> Arrays:
    """Weights of transformers' Dinov2 under timm's names: queries, keys and values are one matrix there.

    Args:
        state: As `dinov2_state` gives it.
    """
    named = dict(state)
    named["pos_embed"] = named.pop("embeddings.position_embeddings")
    named.pop("embeddings.mask_token", None)  # of its own training
    for pattern, replacement in _TIMM_NAMES:
        named = {re.sub(pattern, replacement, name): array for name, array in named.items()}
    for name in [name for name in named if _QUERY.fullmatch(name)]:
        parts = [named.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        named[_QUERY.sub(r"\1attn.qkv.\2", name)] = np.concatenate(parts)
    return named
