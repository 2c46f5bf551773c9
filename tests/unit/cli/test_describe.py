"""`describe.py`: parts, counts and memory of a recipe, from shapes alone."""

import re
import sys
from pathlib import Path

import pytest
import torch
from pytest import CaptureFixture

from blip2_train.cli.describe import PAPER, main
from blip2_train.cli.memory_table import exact_size, show_memory
from blip2_train.cli.terminal import run_command
from blip2_train.config.compose import compose, instantiate
from blip2_train.models.quantization import bitsandbytes
from blip2_train.system.screen import make_console


def described(capsys: CaptureFixture[str], *arguments: str) -> str:
    assert run_command(main, arguments) == 0
    return capsys.readouterr().out


def tables(capsys: CaptureFixture[str], *settings: str) -> str:
    """The tables of weights alone: counting a step as well, as the command does, takes seconds for each recipe."""
    with torch.device("meta"):
        model = instantiate(compose([*settings, "init_from=null"]).model)
    show_memory(model, make_console())
    return capsys.readouterr().out


def rows(shown: str, title: str) -> dict[str, list[str]]:
    """Cells of a printed table by its first column."""
    lines = shown[shown.index(title) :].splitlines()[2:]
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return {first: rest for first, *rest in cells if rest}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in PAPER if name.startswith("stage2_")])
def test_counts_beside_the_papers_and_needs_no_init_from(recipe: str, capsys: CaptureFixture[str]) -> None:
    line = described(capsys, f"experiment={recipe}").splitlines()[-1]
    match = re.fullmatch(
        r"trainable parameters: ([\d,]+) of ([\d,]+) \(Table 2 of the paper: (\w+) of ([\d.]+)B\)", line
    )
    assert match
    trainable, total = (int(match.group(index).replace(",", "")) for index in (1, 2))
    assert f"{trainable / 1e6:.0f}M" == match.group(3)
    assert total / 1e9 == pytest.approx(float(match.group(4)), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "trainable"),
    {
        "caption_coco_opt_2.7b": 1_093_619_584,  # printed by a reproduction (section 1.10 of the reference)
        "caption_coco_opt_6.7b": 1_093_619_584 + 769 * (4096 - 2560),  # a wider projection
        "caption_coco_flan_t5_xl": 1_093_619_584 - 769 * (2560 - 2048),
        "retrieval_coco_vit_g": 1_173_191_358,  # as published by mmpretrain
        "retrieval_coco_vit_l": 474_177_342,
    }.items(),
)
def test_exact_counts_of_fine_tuning(recipe: str, trainable: int, capsys: CaptureFixture[str]) -> None:
    line = described(capsys, f"experiment={recipe}").splitlines()[-1]
    assert line.startswith(f"trainable parameters: {trainable:,} of ") and PAPER[recipe] in line
    printed = re.search(r"([\d.]+)([MB]) trainable", line)
    assert printed is not None
    unit, digits = {"M": (1e6, 0), "B": (1e9, 1)}[printed.group(2)]
    assert f"{trainable / unit:.{digits}f}" == printed.group(1)


@pytest.mark.slow
def test_the_published_card(capsys: CaptureFixture[str]) -> None:
    shown = tables(capsys, "experiment=stage2_vit_g_opt_2.7b")
    card = rows(shown, "memory as model cards count it")
    assert card["float32"] == ["490.94 MB", "14.43 GB", "57.72 GB"]
    assert card["16 bits"] == ["245.47 MB", "7.21 GB", "28.86 GB"]
    assert card["int8"] == ["122.73 MB", "3.61 GB", "14.43 GB"]
    assert card["int4"] == ["61.37 MB", "1.8 GB", "7.21 GB"]


@pytest.mark.slow
def test_memory_of_each_precision(capsys: CaptureFixture[str]) -> None:
    shown = tables(capsys, "experiment=stage2_vit_g_flan_t5_xxl")
    table = rows(shown, "memory of this recipe")
    names = ("float32", "bfloat16, as configured", "int8", "int4")
    weights = [float(table[f"language model in {name}"][0].split()[0]) for name in names]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 3 * weights[2]
    assert {table[f"language model in {name}"][1] for name in names} == {exact_size(3 * 4 * 108_314_880)}


@pytest.mark.slow
def test_memory_is_counted_without_the_libraries_that_use_would_need(
    capsys: CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("experiment=demo_stage2_opt", "init_from=null", "--memory")
    expected = described(capsys, *command)
    bitsandbytes.cache_clear()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert described(capsys, *command) == expected and "language model in int4" in expected
    bitsandbytes.cache_clear()


@pytest.mark.slow
def test_a_model_without_language_model(capsys: CaptureFixture[str]) -> None:
    shown = described(capsys, "experiment=stage1_vit_g")
    assert "trainable parameters: 186,705,470 of 1,172,599,998\n" in shown
    assert next(iter(rows(tables(capsys, "experiment=stage1_vit_g"), "memory of this recipe"))) == "as configured"


@pytest.mark.slow
def test_vqa_trains_the_text_half_but_for_the_last_layers(capsys: CaptureFixture[str]) -> None:
    """The paper's 1.2B: tower at 490 pixels, stage 2's set, embeddings, text feed-forward of 11 of 12 layers."""
    shown = described(capsys, "experiment=vqa_opt_2.7b")
    count = 987_258_880 + 107_133_696 + 23_834_880 + 11 * 4_723_968
    assert count == 1_170_191_104 and f"trainable parameters: {count:,} of 3,821,787,904\n" in shown


@pytest.mark.slow
def test_memory_with_settings_and_the_largest_micro_batch(capsys: CaptureFixture[str]) -> None:
    settings = ["experiment=demo_stage2_opt", "model.language.dtype=bfloat16", "init_from=somewhere"]
    shown = described(capsys, *settings, "--memory")
    assert "language model in bfloat16, as configured" in shown
    assert "memory as model cards count it" in shown
    table = rows(shown, "activations, bf16-mixed, texts of")
    assert set(table) >= {"whatever the micro-batch", "for each sample"}
    match = re.search(r"largest micro-batch: (\d+) on 24 GB, (\d+) on 40 GB, (\d+) on 80 GB, (\d+) on 141 GB", shown)
    assert match is not None
    sizes = [int(size) for size in match.groups()]
    assert sizes == sorted(sizes) and 5.5 < sizes[3] / sizes[0] < 8


@pytest.mark.slow
def test_memory_counts_what_contrast_over_a_step_keeps_and_what_stored_features_spare(
    capsys: CaptureFixture[str], tmp_path: Path
) -> None:
    small = ["model.qformer.weights=random", "model.qformer.num_layers=1", "image_size=24", "trainer.devices=2"]
    settings = ["experiment=demo_stage1", *small, "accumulate=4", "objective.contrast=batch", "--memory"]
    shown = described(capsys, *settings, f"data.features={tmp_path}")
    float32 = 4 * (5 * 128 + 8 * 128 + 128) + 32 * 9  # patches, image and text features; ids and mask of a text
    table = rows(shown, "activations, bf16-mixed, texts of")
    assert table["for each of the 32 samples of a step"] == [exact_size(float32)]
    whole = float(rows(shown, "memory as model cards count it")["float32"][1].split()[0])
    without_tower = float(rows(shown, "memory of this recipe")["as configured"][0].split()[0])
    assert without_tower < whole / 2, "the tower has most of this model's weights"


def test_help_names_the_option(capsys: CaptureFixture[str]) -> None:
    assert "--memory" in described(capsys, "--help")
