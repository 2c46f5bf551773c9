"""What a model starts from when its images are larger than before, and its tower trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shard_files import write_tokenizer
from tiny import image_text_model, qformer_config, vision_config
from tiny_generation import ARCHITECTURES, generative_model
from torch import Tensor

from blip2_train.checkpoints.architecture import describe_model
from blip2_train.checkpoints.export import Manifest, write_export
from blip2_train.checkpoints.files import read_weights
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.checkpoints.position_embeddings import resize_position_embeddings
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import LanguageModelConfig
from blip2_train.models.freezing import trainable_names
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.vision_tower import create_timm_tower

POSITIONS = "vision_model.tower.pos_embed"


@pytest.fixture
def tower_file(tmp_path: Path) -> str:
    """A tower of its own, as it was published: all blocks, for images of 32 pixels."""
    torch.manual_seed(5)
    save_file(create_timm_tower(vision_config()).state_dict(), tmp_path / "tower.safetensors")
    return str(tmp_path / "tower.safetensors")


def export(folder: Path, model: Blip2Model, stage: str, state: dict[str, Tensor] | None = None) -> str:
    """An export of what a model trains."""
    keep = trainable_names(model)
    manifest = Manifest(
        stage=stage,
        recipe="r",
        step=1,
        metrics={},
        parent=None,
        frozen_fingerprint="",
        architecture=describe_model(model),
    )
    tokenizer = load_qformer_tokenizer(write_tokenizer(folder.parent / "tokenizer"))
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in keep} if state is None else state
    return str(write_export(folder, weights, "", tokenizer, manifest))


def larger(tower_file: str, frozen: bool = False) -> ImageTextModel:
    """A stage-1 model for images of 48 pixels, 36 patches instead of 16."""
    torch.manual_seed(9)
    return ImageTextModel(vision_config(weights=tower_file, image_size=48, frozen=frozen), qformer_config())


def test_a_tower_that_was_frozen_comes_from_its_own_file(tower_file: str, tmp_path: Path) -> None:
    before = image_text_model(1, vision={"weights": tower_file})
    model = larger(tower_file)
    reports = load_initial_weights(model, export(tmp_path / "export", before, "stage1"))
    assert [report.what.split(" ")[0] for report in reports] == ["vision", "export"]
    published, state = read_weights(tower_file), model.state_dict()
    expected = resize_position_embeddings(published["pos_embed"], tokens=37, prefix_tokens=1)
    assert expected.shape[1] == 37 and torch.equal(state[POSITIONS], expected)
    assert torch.equal(state["vision_model.tower.blocks.1.mlp.fc1.weight"], published["blocks.1.mlp.fc1.weight"])
    assert torch.equal(state["query_tokens"], before.query_tokens)
    assert all(p.requires_grad for p in model.vision_model.parameters())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_tower_that_was_trained_comes_from_the_export(tower_file: str, tmp_path: Path, frozen: bool) -> None:
    """Its own file is not even read, whether it trains on or not."""
    before = image_text_model(1, vision={"frozen": False})
    folder = export(tmp_path / "export", before, "stage1")
    model = larger(str(tmp_path / "no such file"), frozen)
    (report,) = load_initial_weights(model, folder)
    state, old = model.state_dict(), before.state_dict()
    for name in (name for name in old if name.startswith("vision_model.") and name != POSITIONS):
        assert torch.equal(state[name], old[name]), name
    assert torch.equal(state[POSITIONS], resize_position_embeddings(old[POSITIONS], tokens=37, prefix_tokens=1))
    assert not report.fresh and not report.ignored


def test_half_a_tower_is_refused(tower_file: str, tmp_path: Path) -> None:
    before = image_text_model(1, vision={"frozen": False})
    state = {name: tensor for name, tensor in before.state_dict().items() if ".blocks.1." not in name}
    folder = export(tmp_path / "export", before, "stage1", state)
    with pytest.raises(CheckpointMismatch, match=r"lacks .*vision_model\.tower"):
        load_initial_weights(larger(tower_file), folder)


def test_a_generative_model_continues_stage_2_with_larger_images(tower_file: str, tmp_path: Path) -> None:
    before = generative_model(vision={"weights": tower_file})
    folder = export(tmp_path / "export", before, "stage2")
    language = LanguageModelConfig(name="opt", weights="random", architecture=ARCHITECTURES["opt"])
    vision = vision_config(weights=tower_file, image_size=48, frozen=False)
    model = GenerativeModel(vision, qformer_config(), language)
    reports = load_initial_weights(model, folder)
    assert torch.equal(model.language_projection.weight, before.language_projection.weight)
    assert model.state_dict()[POSITIONS].shape[1] == 37
    assert all(name.startswith("language_model.") for name in set(reports[-1].fresh) if "vision_model" not in name)
    assert reports[-1].notes == ("trained on images of 32 px, used with 48 px (image_size)",)
    assert model.query_states(torch.randn(2, 3, 48, 48)).shape == (2, 4, 16)


@pytest.mark.parametrize(("frozen", "noted"), [(False, True), (True, False)])
def test_fine_tuning_that_starts_from_stage_1_is_noted(
    tower_file: str, tmp_path: Path, frozen: bool, noted: bool
) -> None:
    """Stage 2, whose tower is frozen, starts so by nature; captions and questions rarely do on purpose."""
    folder = export(tmp_path / "export", image_text_model(1, vision={"weights": tower_file}), "stage1")
    language = LanguageModelConfig(name="opt", weights="random", architecture=ARCHITECTURES["opt"])
    model = GenerativeModel(vision_config(weights=tower_file, frozen=frozen), qformer_config(), language)
    line = load_initial_weights(model, folder)[-1].line()
    assert "fresh (language_projection" in line
    assert line.endswith("; these are weights of stage1, fine-tuning usually starts from some of stage 2") == noted
