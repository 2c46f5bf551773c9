"""Memory figures: those of a published model card, and those of the recipes, computed from shapes alone."""

import copy
import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from tiny_generation import ARCHITECTURES
from torch import nn
from transformers import Blip2Config, Blip2ForConditionalGeneration

from blip2_train.config.compose import compose, instantiate
from blip2_train.models.configs import LanguageModelConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.language_model import build_language_model
from blip2_train.models.memory import card_count, language_model_bytes, stored_bytes, training_state_bytes
from blip2_train.models.quantization import quantize_language_model

GIB, MIB = 2**30, 2**20

# trainable (exact), all, and both as printed in Li et al., 2023, Table 2
RECIPES = {
    "stage2_vit_l_opt_2.7b": (103_593_984, 3_045_772_288, "104M", "3.1B"),
    "stage2_vit_g_opt_2.7b": (107_133_696, 3_744_625_024, "107M", "3.8B"),
    "stage2_vit_g_opt_6.7b": (108_314_880, 7_752_683_392, "108M", "7.8B"),
    "stage2_vit_l_flan_t5_xl": (103_200_256, 3_243_538_944, "103M", "3.4B"),
    "stage2_vit_g_flan_t5_xl": (106_739_968, 3_942_391_680, "107M", "4.1B"),
    "stage2_vit_g_flan_t5_xxl": (108_314_880, 12_229_541_760, "108M", "12.1B"),
}


@cache
def recipe_model(name: str) -> GenerativeModel:
    """A recipe's model without values, one for all tests that leave it as it is."""
    config = compose([f"experiment={name}", "init_from=null"])
    with torch.device("meta"):
        model = instantiate(config.model)
    assert isinstance(model, GenerativeModel)
    return model


def huggingface_model(recipe: str) -> nn.Module:
    """transformers' own BLIP-2 around the recipe's language model."""
    text = compose([f"experiment={recipe}", "init_from=null"]).model.language.architecture
    with torch.device("meta"):
        return Blip2ForConditionalGeneration(Blip2Config(text_config=dict(text)))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_counts_of_the_paper(recipe: str) -> None:
    model = recipe_model(recipe)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    trainable, total, paper_trainable, paper_total = RECIPES[recipe]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    assert sum(p.numel() for p in model.parameters()) == total
    assert f"{trainable / 1e6:.0f}M" == paper_trainable
    assert total / 1e9 == pytest.approx(float(paper_total[:-1]), rel=0.05)  # the paper's FlanT5-XL rows: 4 % more


@pytest.mark.slow
def test_the_model_card_of_blip2_opt_2_7b() -> None:
    count = card_count(recipe_model("stage2_vit_g_opt_2.7b"))
    card = {  # as published: largest layer in MB, total and training with Adam in GB
        32: (490.94, 14.43, 57.72),
        16: (245.47, 7.21, 28.86),
        8: (122.73, 3.61, 14.43),
        4: (61.37, 1.8, 7.21),
    }
    for bits, figures in card.items():
        sizes = count.largest_layer_bytes(bits) / MIB, count.total_bytes(bits) / GIB, count.training_bytes(bits) / GIB
        assert tuple(round(size, 2) for size in sizes) == figures


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["stage2_vit_g_opt_2.7b", "stage2_vit_g_opt_6.7b", "stage2_vit_g_flan_t5_xl"])
def test_counts_as_the_estimator_does_on_transformers_own_model(recipe: str) -> None:
    assert card_count(recipe_model(recipe)) == card_count(huggingface_model(recipe))


@pytest.mark.slow
def test_the_largest_layer_is_the_embedding_or_a_block() -> None:
    opt, flan = recipe_model("stage2_vit_g_opt_2.7b"), recipe_model("stage2_vit_g_flan_t5_xxl")
    assert card_count(opt).largest_layer == opt.language_model.get_input_embeddings().weight.numel()
    block: Any = flan.language_model.get_decoder().block[0]
    assert card_count(flan).largest_layer == sum(p.numel() for p in block.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_training_needs_optimiser_state_of_what_trains_only(recipe: str) -> None:
    model = recipe_model(recipe)
    state = training_state_bytes(model)
    assert state == 3 * 4 * RECIPES[recipe][0]
    assert stored_bytes(model) + state < card_count(model).training_bytes(32) / 5


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_each_precision_of_the_language_model(recipe: str) -> None:
    model = recipe_model(recipe)
    config = model.language_config
    parameters = sum(p.numel() for p in model.language_model.parameters())
    half = language_model_bytes(config, config.dtype)
    assert half == 2 * parameters == stored_bytes(model.language_model)
    assert language_model_bytes(config, "float32") == 4 * parameters
    eight, four = language_model_bytes(config, config.dtype, "int8"), language_model_bytes(config, config.dtype, "int4")
    assert parameters < eight < 1.1 * parameters
    assert parameters / 2 < four < 0.7 * parameters
    assert language_model_bytes(dataclasses.replace(config, quantization="int8"), config.dtype) == half


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantising_changes_what_is_stored_not_what_is_counted(quantization: str) -> None:
    model = copy.deepcopy(recipe_model("stage2_vit_g_opt_2.7b"))
    before, config = card_count(model), model.language_config
    others = stored_bytes(model) - stored_bytes(model.language_model)
    quantize_language_model(model.language_model, quantization)
    assert card_count(model) == before
    assert stored_bytes(model) == others + language_model_bytes(config, config.dtype, quantization)


def test_a_tied_weight_is_stored_once_and_counted_twice_by_cards() -> None:
    embedding, head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleDict({"embedding": embedding, "norm": nn.BatchNorm1d(4), "head": head})
    buffers = 4 * 4 + 4 * 4 + 8  # running mean, running variance, number of batches
    assert stored_bytes(model) == 4 * (40 + 8) + buffers
    assert card_count(model).numbers == 40 + 8 + 9 + 40
    assert card_count(model).largest_layer == 40


def test_counts_what_is_really_stored() -> None:
    language = LanguageModelConfig(name="opt", weights="random", architecture=ARCHITECTURES["opt"])
    real = build_language_model(language)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in real.state_dict().values()}
    assert sum(storages.values()) == stored_bytes(real) == language_model_bytes(language, "float32")
