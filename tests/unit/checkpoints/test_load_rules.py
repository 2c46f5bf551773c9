import pytest
import torch
from safetensors.torch import save_file
from tiny import VOCABULARY, image_text_model, vision_config
from tiny_generation import generative_model
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from blip2_train.checkpoints.convert.bert import load_bert
from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.checkpoints.files import fingerprint, read_weights
from blip2_train.checkpoints.load_rules import LoadRule, load_by_rule
from blip2_train.checkpoints.position_embeddings import resize_position_embeddings
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.vision_tower import VisionTower, create_timm_tower


def two_layers() -> nn.Module:
    return nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 1)})


def test_a_full_state_loads_and_reports() -> None:
    source, target = two_layers(), two_layers()
    report = load_by_rule(target, source.state_dict(), LoadRule(what="weights"))
    assert torch.equal(source["a"].weight, target["a"].weight)
    assert len(report.loaded) == 4 and not report.fresh and not report.ignored
    assert len(report.lines()) == 3


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        (lambda s: s.pop("b.bias"), {}, "lacks .*b.bias"),
        (lambda s: s.update({"c.weight": torch.ones(1)}), {}, "unexpected .*c.weight"),
        (lambda s: s.update({"a.weight": torch.ones(3, 5)}), {}, r"a.weight has shape \(3, 5\)"),
        (lambda s: None, {"may_miss": ("d.*",)}, "no such parameter"),
    ],
)
def test_what_the_rule_does_not_expect_is_an_error(change, rule, words) -> None:  # type: ignore[no-untyped-def]
    state = dict(two_layers().state_dict())
    change(state)
    with pytest.raises(CheckpointMismatch, match=words):
        load_by_rule(two_layers(), state, LoadRule(what="weights", **rule))


def stack(layers: int, extra: tuple[str, ...] = ()) -> nn.Module:
    parts = {"layer": nn.ModuleList(nn.Linear(2, 2) for _ in range(layers)), "top": nn.Linear(2, 2)}
    return nn.ModuleDict(parts | {name: nn.Linear(2, 2) for name in extra})


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (stack(3), "lacks 6 tensors .*the file has 3 of layer, the model 6: give the model the file's number"),
        (stack(9), "holds unexpected 6 tensors .*the file has 9 of layer, the model 6"),
        (stack(6, ("more",)), "holds unexpected 2 tensors .*the model has no such parts"),
        (stack(3, ("more",)), "lacks .* and holds unexpected .*; the file is of a model with other parts"),
        (nn.ModuleDict({"layer": stack(6)["layer"]}), "lacks 2 tensors .*not complete, or of a model without these"),
        (two_layers(), r"none of its 4 tensors is one of the model's \(its first is a\.bias\): .*another model"),
        (nn.Module(), "none of its 0 tensors is one of the model's: the file belongs"),
    ],
)
def test_the_reason_is_the_true_one(file: nn.Module, words: str) -> None:
    """Only what names tell: no word of other sizes where none differ, none of another model where parts are missing."""
    with pytest.raises(CheckpointMismatch, match=words) as caught:
        load_by_rule(stack(6), file.state_dict(), LoadRule(what="weights"))
    assert "\n" not in str(caught.value) and "sizes" not in str(caught.value)
    assert ("another model" in str(caught.value)) == ("none of its" in words)


def bert(vocabulary: int = VOCABULARY - 1) -> BertForMaskedLM:
    torch.manual_seed(3)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).eval()


def test_the_text_pass_of_a_q_former_started_from_bert_is_bert(tmp_path) -> None:  # type: ignore[no-untyped-def]
    source, model = bert(), image_text_model().eval()
    source.save_pretrained(tmp_path)
    report = load_bert(model, str(tmp_path))
    ids = torch.tensor([[2, 9, 11, 30, 3]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        # BERT adds the embedding of segment 0 before its layer norm; the Q-Former has no segments
        segments = source.bert.embeddings.token_type_embeddings
        segments.weight.zero_()
        expected = source(ids)
        states = model.qformer(model.embeddings(ids), num_queries=0, mask=mask[:, None, None]).states
        logits = model.lm_head(states, model.embeddings.word_embeddings.weight)
    torch.testing.assert_close(logits[..., :-1], expected.logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(
        model.qformer.encoder.layer[1].output_query.dense.weight, source.bert.encoder.layer[1].output.dense.weight
    )
    assert any("crossattention" in name for name in report.fresh)


def test_bert_gives_a_q_former_that_reads_questions_both_halves(tmp_path) -> None:  # type: ignore[no-untyped-def]
    source, model = bert(), generative_model(reads_questions=True)
    source.save_pretrained(tmp_path)
    load_bert(model, str(tmp_path))
    words = source.bert.embeddings.word_embeddings.weight
    assert torch.equal(model.embeddings.word_embeddings.weight[: VOCABULARY - 1], words)
    layer, theirs = model.qformer.layers[1], source.bert.encoder.layer[1]
    assert torch.equal(layer.output.dense.weight, theirs.output.dense.weight)
    assert torch.equal(layer.output_query.dense.weight, theirs.output.dense.weight)


def test_bert_of_another_vocabulary_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    bert(40).save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatch, match="40 tokens"):
        load_bert(image_text_model(), str(tmp_path))


def test_a_missing_or_damaged_weight_file_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CheckpointMismatch, match="no weight file"):
        read_weights(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointMismatch, match="damaged"):
        read_weights(tmp_path / "broken.safetensors")
    torch.save({"optimizer": 3}, tmp_path / "other.pt")
    with pytest.raises(CheckpointMismatch, match="tensors"):
        read_weights(tmp_path / "other.pt")
    with pytest.raises(CheckpointMismatch, match="holds none"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("onnx/model.onnx", r"but an ONNX graph \(onnx/model\.onnx\), which is not read here"),
        ("model-q4_0.gguf", "but a GGUF file"),
        ("tf_model.h5", "but weights of TensorFlow"),
        ("adapter_model.safetensors", "but weights of a peft adapter"),
        ("bert.pt", r"but bert\.pt; give the path of that file"),
        ("config.json", "give the folder that has the weights"),
    ],
)
def test_a_folder_with_weights_of_another_kind_is_named(tmp_path, name: str, words: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointMismatch, match=f"holds none of model.safetensors, .*{words}"):
        read_weights(tmp_path)


def test_a_tower_file_with_later_blocks_and_another_size_loads(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    whole = create_timm_tower(vision_config())
    save_file(whole.state_dict(), tmp_path / "tower.safetensors")
    config = vision_config(weights=str(tmp_path / "tower.safetensors"), image_size=48)
    tower = VisionTower(config)
    report = load_tower(tower, config)
    assert torch.equal(tower.tower.blocks[1].mlp.fc1.weight, whole.blocks[1].mlp.fc1.weight)
    assert any(name.startswith("blocks.2.") for name in report.ignored) and not report.fresh
    assert tower.tower.pos_embed.shape[1] == 37
    with pytest.raises(ConfigError, match="tag"):
        load_tower(tower, vision_config(weights="timm"))


def test_position_embeddings_resize_and_keep_the_class_token() -> None:
    positions = torch.randn(1, 17, 6)
    assert resize_position_embeddings(positions, tokens=17, prefix_tokens=1) is positions
    larger = resize_position_embeddings(positions, tokens=37, prefix_tokens=1)
    assert larger.shape == (1, 37, 6) and torch.equal(larger[:, 0], positions[:, 0])
    with pytest.raises(CheckpointMismatch, match="square"):
        resize_position_embeddings(positions, tokens=20, prefix_tokens=1)


def test_fingerprints_see_values_and_names() -> None:
    a = {"x": torch.ones(2), "y": torch.zeros(2, dtype=torch.float16)}
    assert fingerprint(a) == fingerprint(dict(reversed(a.items())))
    assert fingerprint(a) != fingerprint({**a, "y": torch.ones(2, dtype=torch.float16)})
    assert fingerprint(a) != fingerprint({"x": a["x"], "z": a["y"]})
