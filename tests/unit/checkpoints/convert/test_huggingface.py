"""Conversion from and to transformers' BLIP-2: nothing is lost, everything is accounted for."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import CLIP, DEMO, EVA, WORDS, language_tokenizer, our_model, save_theirs, their_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    OPTConfig,
    T5Config,
)

from blip2_train.checkpoints.architecture import build_model, describe_model
from blip2_train.checkpoints.convert.huggingface_config import describe_config
from blip2_train.checkpoints.convert.key_map import HUGGING_FACE
from blip2_train.checkpoints.convert.qkv_bias import merge_qkv_biases
from blip2_train.checkpoints.export import Manifest
from blip2_train.checkpoints.foreign_exports import huggingface as huggingface_export
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.config.compose import compose, instantiate
from blip2_train.errors import CheckpointMismatch


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    """Bit for bit, in the same precision, under the same names."""
    state, again = model.state_dict(), other.state_dict()
    assert state.keys() == again.keys()
    for name, tensor in state.items():
        assert tensor.dtype == again[name].dtype and torch.equal(tensor, again[name]), name


def export(
    tmp_path: Path, kind: str = "opt", vision: dict[str, Any] | None = None, **language: Any
) -> tuple[Any, Path]:
    model, processor, manifest = our_model(kind, vision, **language)
    return model, write_huggingface(tmp_path / "there", model, processor, manifest)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "vision"),
    [
        ("opt", None),
        ("t5", EVA | {"dtype": "float16"}),
        ("retrieval", EVA),
        ("retrieval", {"image_size": 56}),
        ("opt", EVA | {"image_size": 40, "dropped_blocks": 0, "frozen": False}),
    ],
)
def test_there_and_back_is_bit_equal(kind: str, vision: dict[str, Any] | None, tmp_path: Path) -> None:
    """Also other image sizes, 16-bit parts, the prediction head and the temperature."""
    model, folder = export(tmp_path, kind, vision, **({} if kind == "retrieval" else {"dtype": "bfloat16"}))
    back = open_pretrained(folder)
    assert_same_weights(model, back.model)
    assert describe_model(back.model)["vision"] == describe_model(model)["vision"]
    assert back.source.endswith("made by blip2_train") and back.held >= {"vision_model"}
    again = write_huggingface(tmp_path / "again", back.model, back.processor, back.manifest)
    first, second = (load_file(path / "model.safetensors") for path in (folder, again))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "t5", "retrieval"])
def test_back_and_there_is_bit_equal(kind: str, tmp_path: Path) -> None:
    """A model of transformers, with rows for the image token that this project has no use for."""
    theirs = their_model(kind)
    opened = open_pretrained(save_theirs(theirs, kind, tmp_path / "theirs"))
    assert opened.source == f"Hugging Face {type(theirs).__name__}"
    again = write_huggingface(tmp_path / "again", opened.model, opened.processor, opened.manifest)
    assert_same_weights(theirs, type(theirs).from_pretrained(again))
    assert Blip2Config.from_pretrained(again).image_token_index == theirs.config.image_token_index
    assert opened.processor.image_size == 32 and opened.processor.mean == [0.4, 0.5, 0.6]
    if kind == "retrieval":
        assert [*opened.reports[0].fresh] == ["temperature", "lm_head.bias", *opened.reports[0].fresh[2:]]
        assert opened.model.temperature.item() == pytest.approx(0.07) and opened.model.lm_head.dense.weight.std() > 0.01
        assert len(opened.processor.text_tokenizer) == WORDS
    else:
        assert opened.processor.language_tokenizer.end_id == language_tokenizer(kind).end_id


def test_an_untied_head_stays_untied(tmp_path: Path) -> None:
    """FlanT5 has a head of its own, though transformers' configuration says it is tied."""
    sizes = {"vocab_size": 709, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    architecture = {"model_type": "t5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
                    "decoder_start_token_id": 0, **sizes}  # fmt: skip
    model, processor, manifest = our_model(
        "t5", name=str(DEMO / "t5"), architecture=architecture, overrides={"dense_act_fn": "gelu"}
    )
    head = nn.Linear(32, 709, bias=False)
    model.language_model.lm_head = head.requires_grad_(False)
    back = open_pretrained(write_huggingface(tmp_path / "there", model, processor, manifest)).model
    assert torch.equal(back.language_model.lm_head.weight, head.weight)
    assert_same_weights(model, back)
    config = back.language_model.config
    assert config.dense_act_fn == "gelu" and config.scale_decoder_outputs is False
    theirs = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "there")
    assert theirs.language_model.config.dense_act_fn == "gelu"
    assert torch.equal(theirs.language_model.lm_head.weight[:709], head.weight)


def test_the_row_of_the_image_token_never_scores_best(tmp_path: Path) -> None:
    model, folder = export(tmp_path)
    words = model.language_model.get_input_embeddings().weight
    row = load_file(folder / "model.safetensors")["language_model.model.decoder.embed_tokens.weight"][len(words) :]
    assert len(row) == 1 and torch.allclose(row[0], words.mean(dim=0), atol=1e-6)
    processor = Blip2Processor.from_pretrained(folder)
    ids = processor(text="a", images=torch.zeros(3, 32, 32), return_tensors="pt")["input_ids"]
    assert ids[0].tolist()[:5] == [len(words)] * 4 + [2]
    for states in (torch.randn(100, words.shape[1]), 9 * torch.randn(100, words.shape[1])):
        scores = states @ torch.cat([words, row]).T
        assert (scores.argmax(dim=1) < len(words)).all()
        assert (scores.logsumexp(dim=1) - scores[:, :-1].logsumexp(dim=1) < 1 / len(words)).all()


def test_the_folder_has_all_that_transformers_reads(tmp_path: Path) -> None:
    _, folder = export(tmp_path, "opt", {"image_size": 56})
    processor = Blip2Processor.from_pretrained(folder)
    assert processor.num_query_tokens == 4 and processor.tokenizer.padding_side == "left"
    assert dict(processor.image_processor.size) == {"height": 56, "width": 56}
    theirs = Blip2ForConditionalGeneration.from_pretrained(folder)
    newline = language_tokenizer("opt").end_id
    assert theirs.generation_config.eos_token_id == theirs.language_model.generation_config.eos_token_id == newline
    assert theirs.config.vision_config.image_size == 56 and theirs.config.vision_config.layer_norm_eps == 1e-6


@pytest.mark.slow
def test_precision_of_the_folder(tmp_path: Path) -> None:
    """What `from_pretrained` loads: 16 bits only if all frozen parts have the same."""
    for number, (tower, language, expected) in enumerate(
        [("float16", "float16", "float16"), ("float16", "bfloat16", "float32"), ("float32", "float32", "float32")]
    ):
        model, processor, manifest = our_model("opt", {"dtype": tower}, dtype=language)
        folder = write_huggingface(tmp_path / str(number), model, processor, manifest)
        assert json.loads((folder / "config.json").read_text())["dtype"] == expected
    model.language_config = replace(model.language_config, quantization="int8")
    with pytest.raises(CheckpointMismatch, match="quantised"):
        write_huggingface(tmp_path / "quantised", model, processor, manifest)


def test_model_card(tmp_path: Path) -> None:
    model, processor, _ = our_model("opt")
    manifest = Manifest(
        stage="stage2",
        recipe="my_recipe",
        step=77,
        metrics={"val/cider": 1.234},
        parent="ab12",
        frozen_fingerprint="cd34",
    )
    sources = "[{name: my_images}, {name: null, path: /home/me/own.csv}]"
    config = f"global_batch_size: 64\noptim: {{lr: 0.001}}\ndata:\n  sources: {sources}\n"
    card = (write_huggingface(tmp_path / "x", model, processor, manifest, config) / "README.md").read_text("utf-8")
    for expected in (
        "my_recipe",
        "77",
        "1.234",
        "ab12",
        "cd34",
        "| data | `my_images`, `own.csv` |",
        "0.001",
        "Limitations",
        "from_pretrained",
    ):
        assert expected in card
    assert str(DEMO) not in card and card.startswith("---\nlibrary_name: transformers\n")


@pytest.mark.parametrize(
    ("vision", "reason"),
    [
        (CLIP, "normalises before its first block"),
        ({"name": "vit_base_patch16_siglip_224"}, "no class token"),
        ({"name": "vit_base_patch16_224", "overrides": {"init_values": 0.1}}, "scales the output of its layers"),
        ({"name": "vit_base_patch16_224", "overrides": {"act_layer": "gelu_tanh"}}, "not the exact GELU"),
        ({"name": "vit_base_patch16_224", "overrides": {"reg_tokens": 2}}, "register tokens"),
        ({"name": "vit_base_patch16_224", "overrides": {"no_embed_class": True}}, "position embedding for its class"),
        ({"name": "eva02_tiny_patch14_224", "overrides": {}}, "cannot hold this vision tower"),
    ],
)  # fmt: skip
def test_towers_that_transformers_cannot_hold(vision: dict[str, Any], reason: str, tmp_path: Path) -> None:
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
    vision = {**vision, "overrides": sizes | vision.get("overrides", {})}
    model, processor, manifest = our_model("retrieval", vision)
    with pytest.raises(CheckpointMismatch, match=reason):
        write_huggingface(tmp_path / "there", model, processor, manifest)
    assert not (tmp_path / "there").exists()


def test_a_language_model_with_narrow_embeddings_is_refused(tmp_path: Path) -> None:
    narrow = json.loads((DEMO / "opt" / "config.json").read_text()) | {"word_embed_proj_dim": 80}
    model, processor, manifest = our_model("opt", architecture=narrow)
    with pytest.raises(CheckpointMismatch, match="80 wide"):
        write_huggingface(tmp_path / "there", model, processor, manifest)


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_export, "SHARD_SIZE", "300KB")
    model, folder = export(tmp_path)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 3 and (folder / "model.safetensors.index.json").is_file()
    assert_same_weights(model, open_pretrained(folder).model)
    assert_same_weights(
        Blip2ForConditionalGeneration.from_pretrained(folder).language_model.model.decoder.layers,
        model.language_model.model.decoder.layers,
    )
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointMismatch, match=rf"{shards[1].name} cannot be read as weights .* cut short"):
        open_pretrained(folder)
    shards[1].unlink()
    with pytest.raises(CheckpointMismatch, match=rf"lacks {shards[1].name}, 1 of the {len(shards)} shards"):
        open_pretrained(folder)


def test_old_pickled_weights(tmp_path: Path) -> None:
    """`pytorch_model.bin`, tied weights under all their names, and buffers that later versions do not store."""
    theirs = their_model("opt")
    folder = save_theirs(theirs, "opt", tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    state = theirs.state_dict() | {"embeddings.position_ids": torch.arange(4)}
    assert "language_model.lm_head.weight" in state
    torch.save(state, folder / "pytorch_model.bin")
    opened = open_pretrained(folder)
    assert opened.reports[0].ignored == ("embeddings.position_ids",)
    assert torch.equal(opened.model.language_model.lm_head.weight, theirs.language_model.lm_head.weight)
    torch.save(state | {"config": Path}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointMismatch, match=r"is refused: it is a pickle that names pathlib.*Path"):
        open_pretrained(folder)


def changed(folder: Path, **changes: Tensor | None) -> Path:
    file = folder / "model.safetensors"
    state = {key: tensor.clone() for key, tensor in load_file(file).items()}
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor.clone()
    save_file(state, file, metadata={"format": "pt"})
    return folder


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    folder = save_theirs(their_model("opt"), "opt", tmp_path / "theirs")
    key = "qformer.encoder.layer.1.attention.attention.query.weight"
    name = key.replace(".", "__")
    tensor = load_file(folder / "model.safetensors")[key]
    with pytest.raises(CheckpointMismatch, match=rf"{key} has shape \(16, 15\), the model needs \(16, 16\)"):
        open_pretrained(changed(folder, **{name: tensor[:, :15].clone()}))
    with pytest.raises(CheckpointMismatch, match=rf"lacks {key};"):
        open_pretrained(changed(folder, **{name: None}))
    with pytest.raises(CheckpointMismatch, match=r"1 keys that are not known here, first vision_model.strange"):
        open_pretrained(changed(folder, **{name: tensor, "vision_model__strange": tensor}))
    theirs = "vision_model.encoder.layers.7.layer_norm1.bias"
    with pytest.raises(CheckpointMismatch, match=f"holds unexpected {theirs}"):
        open_pretrained(changed(folder, vision_model__strange=None, **{theirs.replace(".", "__"): torch.zeros(24)}))


def test_what_lies_beside_changed_weights_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Someone trained on in transformers and saved into the same folder."""
    model, folder = export(tmp_path, "retrieval")
    changed(folder, query_tokens=model.query_tokens.detach() + 1)
    with caplog.at_level(logging.WARNING):
        opened = open_pretrained(folder)
    assert "changed after the export" in caplog.text
    assert opened.source == "Hugging Face Blip2ForImageTextRetrieval"
    assert not torch.equal(opened.model.lm_head.dense.weight, model.lm_head.dense.weight)
    assert torch.equal(opened.model.itm_head.weight, model.itm_head.weight)


def test_a_bias_of_the_keys_is_left_out_where_the_tower_has_none(tmp_path: Path) -> None:
    model, folder = export(tmp_path, "retrieval", EVA)
    name = "vision_model__encoder__layers__0__self_attn__qkv__bias"
    bias = load_file(folder / "model.safetensors")[name.replace("__", ".")]
    assert not bias[24:48].any()
    changed(folder, **{name: torch.cat([bias[:24], torch.ones(24), bias[48:]])})
    assert_same_weights(model, open_pretrained(folder).model)


OPT_27 = OPTConfig(
    vocab_size=50304, hidden_size=2560, word_embed_proj_dim=2560, ffn_dim=10240, num_hidden_layers=32,
    num_attention_heads=32, max_position_embeddings=2048, eos_token_id=50118,
)  # fmt: skip
OPT_67 = OPTConfig(
    vocab_size=50304, hidden_size=4096, word_embed_proj_dim=4096, ffn_dim=16384, num_hidden_layers=32,
    num_attention_heads=32, max_position_embeddings=2048, eos_token_id=50118,
)  # fmt: skip
FLAN = {
    "vocab_size": 32128, "d_kv": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu",
    "tie_word_embeddings": False, "bos_token_id": 1, "decoder_start_token_id": 0,
}  # fmt: skip
XL, XXL = (
    T5Config(d_model=2048, d_ff=5120, num_heads=32, **FLAN),
    T5Config(d_model=4096, d_ff=10240, num_heads=64, **FLAN),
)
PUBLISHED = {
    "blip2-opt-2.7b": (OPT_27, 224, "stage2_vit_g_opt_2.7b"),
    "blip2-opt-2.7b-coco": (OPT_27, 364, "stage2_vit_g_opt_2.7b"),
    "blip2-opt-6.7b": (OPT_67, 224, "stage2_vit_g_opt_6.7b"),
    "blip2-opt-6.7b-coco": (OPT_67, 364, "stage2_vit_g_opt_6.7b"),
    "blip2-flan-t5-xl": (XL, 224, "stage2_vit_g_flan_t5_xl"),
    "blip2-flan-t5-xl-coco": (XL, 364, "stage2_vit_g_flan_t5_xl"),
    "blip2-flan-t5-xxl": (XXL, 224, "stage2_vit_g_flan_t5_xxl"),
    "blip2-itm-vit-g": (None, 224, "stage1_vit_g"),
    "blip2-itm-vit-g-coco": (None, 364, "stage1_vit_g"),
}
"""Language model, image size, and our recipe of the same model; vision and Q-Former have transformers' defaults."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_the_published_models(name: str) -> None:
    """On the meta device, from their configuration and from our recipe."""
    text, size, recipe = PUBLISHED[name]
    config = Blip2Config(
        text_config=None if text is None else text.to_dict(),
        qformer_config={"use_qformer_text_input": True, "vocab_size": 30523} if text is None else {},
        vision_config={"image_size": size},
    )
    settings = compose([f"experiment={recipe}", f"image_size={size}", "init_from=null"])
    with torch.device("meta"):
        theirs = (Blip2ForImageTextRetrieval if text is None else Blip2ForConditionalGeneration)(config).state_dict()
        marker = {"itm_head.weight": torch.empty(2, 768)} if text is None else {}
        ours = build_model(describe_config(config, marker, name))
        trained = instantiate(settings.model)
    expected = {key: tuple(tensor.shape) for key, tensor in theirs.items()}
    assert as_theirs(ours) == expected
    if "t5" in name:  # what their configuration says in a roundabout way
        architecture = ours.language_model.config
        assert architecture.dense_act_fn == "gelu" and architecture.scale_decoder_outputs is False
    from_recipe = as_theirs(trained)
    words = {key for key in expected if expected[key] != from_recipe.get(key)}
    assert words == ({key for key in expected if expected[key][0] == 50304} if "opt" in name else set())
    assert all(from_recipe[key] == (50272, *expected[key][1:]) for key in words)


def as_theirs(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that transformers knows, under its names."""
    shapes = {}
    for name, tensor in merge_qkv_biases(model.state_dict()).items():
        key = HUGGING_FACE.to_theirs(name)
        assert key is not None or name == "temperature" or name.startswith("lm_head."), name
        if key is not None:
            assert HUGGING_FACE.to_ours(key) == name
            shapes[key] = tuple(tensor.shape)
    return shapes
