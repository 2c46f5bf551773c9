"""Scores of OpenCLIP's models: transformers' own of the same weights; what cannot be used is one line."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from foreign_models import stir
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.open_clip_scorer import OpenClipScorer
from blip2_train.evaluation.pair_scoring import ClipScorer

CPU = torch.device("cpu")
TEXTS = [["a cat", "two dogs on red"], ["a fox"], ["a very long line of many words " * 9, "a cat", "an owl"]]
MODEL = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "layers": 2, "width": 32, "heads": 2},
}
LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.in_proj": "self_attn.qkv",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""Names inside a layer: open_clip's, and transformers'."""


def as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of open_clip's CLIP by the names of transformers'."""
    converted = {
        "logit_scale": state["logit_scale"],
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
    }
    for theirs, ours in (
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
        ("ln_final", "text_model.final_layer_norm"),
        *((f"{tower}transformer.resblocks.{layer}.{theirs}", f"{name}.encoder.layers.{layer}.{ours}") for tower, name in
          (("visual.", "vision_model"), ("", "text_model")) for layer in range(2) for theirs, ours in LAYER.items()),
    ):  # fmt: skip
        for kind in ("weight", "bias"):
            converted[f"{ours}.{kind}"] = (
                state[f"{theirs}.{kind}"] if ".attn.in" not in theirs else state[f"{theirs}_{kind}"]
            )
    for name in [name for name in converted if ".qkv." in name]:
        for part, value in zip("qkv", converted.pop(name).chunk(3), strict=True):
            converted[name.replace("qkv", f"{part}_proj")] = value
    return converted


def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL)
    stir(model, 0.2)
    folders = [tmp_path / "open_clip", tmp_path / "transformers"]
    for folder in folders:
        folder.mkdir()
    about = {"model_cfg": MODEL, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}}
    (folders[0] / "open_clip_config.json").write_text(json.dumps(about))
    save_file(model.state_dict(), folders[0] / "open_clip_model.safetensors")

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 128}
    ends = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    text = sizes | ends | {"vocab_size": 49408, "max_position_embeddings": 12}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    other = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    other.load_state_dict(as_transformers(model.state_dict()))
    other.save_pretrained(folders[1])
    words = open_clip.SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(token, token): number for token, number in words.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=list(words.bpe_ranks), model_max_length=12)
    shape = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    preparing = CLIPImageProcessor(**shape, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    CLIPProcessor(preparing, tokenizer).save_pretrained(folders[1])

    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in TEXTS]
    handlers = list(logging.getLogger().handlers)
    scorer = OpenClipScorer(str(folders[0]), CPU)
    assert logging.getLogger().handlers == handlers and logging.root.manager.disable == 0
    all_scores, all_expected = scorer(images, TEXTS), ClipScorer(folders[1], CPU)(images, TEXTS)
    assert [len(some) for some in all_scores] == [2, 1, 3] and len(
        {score for some in all_scores for score in some}
    ) == 6
    for scores, expected in zip(all_scores, all_expected, strict=True):
        assert scores == pytest.approx(expected, abs=1e-5)
    assert scorer.weights().keys() == model.state_dict().keys()


def test_weights_get_the_function_they_were_trained_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    requests: list[dict[str, Any]] = []

    def create(model: str, weights: str | None, **options: Any) -> None:
        requests.append({"model": model, "weights": weights, "quick": options["force_quick_gelu"]})
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    (tmp_path / "own.pt").touch()
    for name in ("ViT-L-14/openai", "ViT-L-14/laion2b_s32b_b82k", f"ViT-L-14-quickgelu/{tmp_path}/own.pt"):
        with pytest.raises(CheckpointMismatch, match=f"^scorer open_clip:{name} cannot be used: no network$"):
            OpenClipScorer(name, CPU)
    assert [one["quick"] for one in requests] == [True, False, False]
    assert requests[2]["weights"] == str(tmp_path / "own.pt")
    with pytest.raises(CheckpointMismatch, match=r"open_clip has no model 'ViT-X'; give open_clip:<model>/<tag>"):
        OpenClipScorer("ViT-X/openai", CPU)
    with pytest.raises(CheckpointMismatch, match="ViT-L-14 has no weights 'gone', and there is no such file; its tags"):
        OpenClipScorer("ViT-L-14/gone", CPU)
    (tmp_path / "open_clip_config.json").write_text("{}")
    monkeypatch.undo()
    with pytest.raises(CheckpointMismatch, match="cannot be used: Could not load valid config"):
        OpenClipScorer(str(tmp_path), CPU)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        ConfigError,
        match=r"=open_clip:ViT-L-14/openai needs open_clip_torch, which is .*: pip install .blip2_train.data",
    ):
        OpenClipScorer("ViT-L-14/openai", CPU)


@pytest.mark.parametrize("deep", [False, True])
def test_a_folder_that_asks_for_foreign_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", SimpleNamespace())
    request = {"model_cfg": {"text_cfg": {"hf_tokenizer_name": "a/b", "tokenizer_kwargs": {"trust_remote_code": True}}}}
    content = "[" * 100_000 if deep else json.dumps(request)
    (tmp_path / "open_clip_config.json").write_text(content)
    expected = "nested too deep" if deep else "asks for trust_remote_code, and foreign code is never run"
    with pytest.raises(CheckpointMismatch, match=f"open_clip_config.json .*{expected}"):
        OpenClipScorer(str(tmp_path), CPU)
