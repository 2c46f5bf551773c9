"""Conversion from and to files of the original release: every key of every variant is accounted for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import CLIP, DEMO, EVA, our_model
from released_files import RELEASED, released
from tiny import vision_config
from torch import Tensor, nn

from blip2_train.checkpoints.architecture import build_model, describe_model
from blip2_train.checkpoints.assembly import complete_manifest
from blip2_train.checkpoints.convert.key_map import CLIP_TOWER, EVA_TOWER, lavis_names
from blip2_train.checkpoints.convert.lavis import read_lavis
from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.checkpoints.foreign_exports.lavis import write_lavis
from blip2_train.checkpoints.frozen_parts import load_language_model
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.config.compose import compose, instantiate
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.freezing import trainable_names
from blip2_train.models.vision_tower import VisionTower


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_names_and_shapes_of_the_released_files(name: str) -> None:
    """Found out from the keys alone; tensors are made without memory."""
    layout, recipe, parameters = RELEASED[name]
    family, tower = layout[1].upper() if len(layout) > 1 else "", ", with its tower" if len(layout) > 3 else ""
    source = f"LAVIS stage 2 ({family}{tower})" if family else f"LAVIS stage 1 (retrieval{tower})"
    shapes = released(*layout)
    content: dict[str, Any] = {
        "model": {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()},
        "iters": 3,
    }
    content["model"]["Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
    opened = read_lavis(content, name, None)
    assert opened is not None and opened.source == source
    assert sum(tensor.numel() for tensor in opened.state.values()) == parameters
    size = layout[3] if len(layout) > 3 else 224
    assert opened.description["vision"]["image_size"] == opened.processor["image_size"] == size
    settings = compose([f"experiment={recipe}", f"image_size={size}", "init_from=null"])
    language = settings.model.get("language")
    if language is not None:
        assert opened.description["language"]["name"] == language.name
        assert opened.description["language"]["dtype"] == language.dtype
        opened.description["language"]["architecture"] = dict(language.architecture)
    with torch.device("meta"):
        model, trained = build_model(opened.description), instantiate(settings.model)
    expected = model.state_dict()
    state = opened.fit(opened.state, expected)
    missing = {key.split(".")[0] for key in expected if key not in state}
    assert missing == ({"vision_model"} if len(layout) < 4 else set()) | ({"language_model"} if language else set())
    assert all(expected[key].shape == tensor.shape for key, tensor in state.items())
    recipe_shapes = {key: tensor.shape for key, tensor in trained.state_dict().items()}
    assert all(recipe_shapes[key] == tensor.shape for key, tensor in state.items())
    if len(layout) < 4:
        assert trainable_names(trained) == set(state)


def tower_file(tmp_path: Path, model: Any) -> str:
    """The whole tower as a file, with one block more and what follows, as towers are published."""
    state = {name: tensor.clone() for name, tensor in model.vision_model.tower.state_dict().items()}
    last = model.vision_model.num_blocks
    state |= {
        name.replace("blocks.0.", f"blocks.{last}."): t for name, t in state.items() if name.startswith("blocks.0.")
    }
    state |= {"norm.weight": torch.ones(24), "norm.bias": torch.zeros(24), "head.weight": torch.zeros(5, 24)}
    torch.save(state, tmp_path / "tower.pth")
    return str(tmp_path / "tower.pth")


def lavis_file(tmp_path: Path, kind: str, vision: dict[str, Any], with_tower: bool) -> tuple[Any, Path]:
    model, _, manifest = our_model(kind, vision)
    if kind != "retrieval":
        load_language_model(model)
    processor = Processor(mean=CLIP_MEAN, std=CLIP_STD, image_size=model.vision_config.image_size, max_text_length=16)
    complete = complete_manifest(manifest, model, processor)
    for part in ("vision", "language"):
        if part in complete.architecture:
            complete.architecture[part]["weights"] = (
                "pretrained" if part == "language" else str(tmp_path / "nowhere.pth")
            )
    return model, write_lavis(tmp_path / "file.pth", model, with_tower=with_tower, manifest=complete)


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    state, again = model.state_dict(), other.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())


VARIANTS = [
    ("retrieval", EVA, False), ("retrieval", EVA | {"image_size": 56}, True), ("retrieval", CLIP, True),
    ("opt", EVA, False), ("opt", EVA | {"image_size": 40}, True), ("t5", EVA, False), ("t5", CLIP, True),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "vision", "with_tower"), VARIANTS)
def test_there_and_back(kind: str, vision: dict[str, Any], with_tower: bool, tmp_path: Path) -> None:
    model, file = lavis_file(tmp_path, kind, vision, with_tower)
    keys = torch.load(file, weights_only=True)["model"]
    assert any(key.startswith("visual_encoder.") for key in keys) == with_tower
    assert not any(key.startswith(("opt_model.", "t5_model.", "language_model.")) for key in keys)
    assert ("Qformer.cls.predictions.decoder.weight" in keys) == (kind == "retrieval")
    options: dict[str, Any] = {} if with_tower else {"vision_weights": tower_file(tmp_path, model)}
    options |= {"tokenizer": str(DEMO / "bert")} if kind == "retrieval" else {"language_model": str(DEMO / kind)}
    opened = open_pretrained(file, **options)
    assert_same_weights(model, opened.model)
    assert opened.held == ({"vision_model"} if with_tower else set())
    assert describe_model(opened.model)["qformer"] == describe_model(model)["qformer"]
    names = [report.what.split(" ")[0] for report in opened.reports]
    assert names == ["LAVIS"] + ([] if with_tower else ["vision"]) + (["language"] if kind != "retrieval" else [])


def with_change(file: Path, key: str, tensor: Tensor | None) -> Path:
    content = torch.load(file, weights_only=True)
    if tensor is None:
        del content["model"][key]
    else:
        content["model"][key] = tensor
    torch.save(content, file)
    return file


@pytest.mark.slow
def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    model, file = lavis_file(tmp_path, "retrieval", EVA, True)
    key = "Qformer.bert.encoder.layer.2.crossattention.self.value.weight"
    tensor = torch.load(file, weights_only=True)["model"][key]
    open_it = {"tokenizer": str(DEMO / "bert")}
    with pytest.raises(CheckpointMismatch, match=rf"{key} has shape \(16, 20\), the model needs \(16, 24\)"):
        open_pretrained(with_change(file, key, tensor[:, :20].clone()), **open_it)
    with pytest.raises(CheckpointMismatch, match=f"lacks {key};"):
        open_pretrained(with_change(file, key, None), **open_it)
    with pytest.raises(CheckpointMismatch, match=r"1 keys that are not known here, first llm_proj.weight"):
        open_pretrained(with_change(with_change(file, key, tensor), "llm_proj.weight", tensor), **open_it)
    with_change(file, "llm_proj.weight", None)
    with pytest.raises(CheckpointMismatch, match=r"holds unexpected visual_encoder.blocks.9.norm1.bias"):
        open_pretrained(with_change(file, "visual_encoder.blocks.9.norm1.bias", torch.zeros(24)), **open_it)
    with_change(file, "visual_encoder.blocks.9.norm1.bias", None)
    opened = open_pretrained(
        with_change(file, "Qformer.bert.embeddings.position_ids", torch.arange(40)[None]), **open_it
    )
    assert "Qformer.bert.embeddings.position_ids" in opened.reports[0].ignored
    untied = torch.load(file, weights_only=True)["model"]["Qformer.cls.predictions.decoder.weight"] + 1
    with pytest.raises(CheckpointMismatch, match=r"decoder.weight is not the same"):
        open_pretrained(with_change(file, "Qformer.cls.predictions.decoder.weight", untied), **open_it)
    with_change(file, "Qformer.cls.predictions.decoder.weight", model.embeddings.word_embeddings.weight.detach())
    content = torch.load(file, weights_only=True)
    torch.save(content, file, _use_new_zipfile_serialization=False)  # as torch wrote until 1.5
    assert_same_weights(model, open_pretrained(file, **open_it).model)
    with pytest.raises(CheckpointMismatch, match=r"has 6 tokens, .* expects"):
        (tmp_path / "words").mkdir()
        (tmp_path / "words" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
        open_pretrained(file, tokenizer=str(tmp_path / "words"))


class Evil:
    """Leaves a trace when a pickle is run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch evil-was-here",)


def test_only_tensors_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, file = lavis_file(tmp_path, "retrieval", EVA, True)
    content = torch.load(file, weights_only=True)
    torch.save(content | {"config": Evil()}, file)
    with pytest.raises(CheckpointMismatch, match="is refused: it is a pickle"):
        open_pretrained(file)
    torch.save({"model": content["model"] | {"epoch": 3}}, file)
    with pytest.raises(CheckpointMismatch, match="plain dictionary of tensors"):
        open_pretrained(file)
    assert not Path("evil-was-here").exists()


def test_what_the_release_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="LAVIS has no tower like vit_tiny_patch16_224"):
        lavis_file(tmp_path, "retrieval", {}, True)
    model, _, manifest = our_model("opt", EVA)
    model.language_model.config.model_type = "llama"
    with pytest.raises(CheckpointMismatch, match="llama"):
        write_lavis(tmp_path / "x.pth", model, with_tower=False, manifest=manifest)
    layout = released(1408, "opt", 1000)
    with pytest.raises(CheckpointMismatch, match="1000 wide, which is none of the release"):
        read_lavis({key: torch.zeros(()).expand(shape) for key, shape in layout.items()}, "x.pth", None)
    layout = released(1408) | {"ln_vision.weight": (500,)}
    with pytest.raises(CheckpointMismatch, match="500 wide"):
        read_lavis({key: torch.zeros(()).expand(shape) for key, shape in layout.items()}, "x.pth", None)


def test_names_are_maps_in_both_directions() -> None:
    for layout in (released(1408, "", 0, 224), released(1024, "t5", 2048, 224), released(1408, "opt", 2560)):
        names = lavis_names(
            CLIP_TOWER if "visual_encoder.conv1.weight" in layout else EVA_TOWER,
            next((family for family in ("opt", "t5") if f"{family}_proj.weight" in layout), ""),
        )
        keys = [key for key in layout if "decoder" not in key]
        assert [names.to_theirs(str(names.to_ours(key))) for key in keys] == keys


def test_the_towers_own_file_is_read(tmp_path: Path) -> None:
    """`eva_vit_g.pth`: timm's names without a prefix, all blocks, the last norm and a head; positions of 224 pixels."""
    model, _, _ = our_model("retrieval", EVA)
    config = vision_config(**EVA, weights=tower_file(tmp_path, model))
    tower = VisionTower(config)
    report = load_tower(tower, config)
    assert_same_weights(model.vision_model, tower)
    assert {"norm.weight", "head.weight", "blocks.2.attn.q_bias"} <= set(report.ignored)
    larger = vision_config(**EVA, weights=config.weights, image_size=64)
    tower = VisionTower(larger)
    load_tower(tower, larger)
    assert tower.tower.pos_embed.shape == (1, 65, 24)


@pytest.mark.parametrize("with_tower", [False, True])
@pytest.mark.parametrize(
    "name",
    ["vit_base_patch16_siglip_224", "eva02_tiny_patch14_224", "vit_small_patch14_dinov2", "vit_base_patch16_clip_224"],
)
def test_other_towers_are_refused(name: str, with_tower: bool, tmp_path: Path) -> None:
    """Also one whose weights have the names of one of LAVIS's, as EVA-02's and those of CLIP with the exact GELU."""
    model, _, manifest = our_model(
        "retrieval", {**EVA, "name": name, "overrides": {"depth": 3, "embed_dim": 24, "num_heads": 2, "patch_size": 8}}
    )
    with pytest.raises(CheckpointMismatch, match=f"no tower like {name}"):
        write_lavis(tmp_path / "x.pth", model, with_tower=with_tower, manifest=manifest)
    assert not (tmp_path / "x.pth").exists()


def test_another_normalisation_is_refused(tmp_path: Path) -> None:
    model, processor, manifest = our_model("retrieval", EVA | {"mean": (0.5, 0.5, 0.5)})
    complete = complete_manifest(manifest, model, processor)
    with pytest.raises(CheckpointMismatch, match=r"CLIP's mean, this model reads \[0\.5"):
        write_lavis(tmp_path / "x.pth", model, with_tower=False, manifest=complete)
