"""The stage-2 model: what is frozen, what gets a gradient, what is read, and what is generated."""

import pytest
import torch
from tiny_generation import ARCHITECTURES, WORDS, generation_batch, generative_model
from tiny_writer import BART

from blip2_train.errors import ConfigError
from blip2_train.models.configs import GenerationOptions, LanguageModelConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.language_model import language_model_architecture, left_padded
from blip2_train.objectives.generation import GenerationObjective

FAMILIES = list(ARCHITECTURES)


def slow_loss(model: GenerativeModel, batch) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Transformers' own loss over all positions, from the same embeddings."""
    prompt = model.soft_prompt(batch.pixel_values)
    text = model.language_model.get_input_embeddings()(batch.input_ids)
    mask = torch.cat([batch.attention_mask.new_ones(prompt.shape[:2]), batch.attention_mask], dim=1).long()
    labels = batch.labels
    if not model.is_encoder_decoder:
        labels = torch.cat([labels.new_full(prompt.shape[:2], -100), labels], dim=1)
    output = model.language_model(inputs_embeds=torch.cat([prompt, text], 1), attention_mask=mask, labels=labels)
    # transformers takes the loss of float64 logits in float32; here all is float64
    logits, expected = output.logits.double(), labels
    if not model.is_encoder_decoder:
        logits, expected = logits[:, :-1], labels[:, 1:]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), expected.flatten(), ignore_index=-100)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_transformers_over_all_positions(family: str) -> None:
    model = generative_model(family).double()
    batch = generation_batch(model)
    loss = GenerationObjective(chunk=3)(model, batch).total
    loss.backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    reference = slow_loss(model, batch)
    reference.backward()
    assert abs(loss.item() - reference.item()) < 1e-12
    slow = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert fast.keys() == slow.keys()
    for name, gradient in slow.items():
        torch.testing.assert_close(fast[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_a_bias_that_transformers_adds_to_the_logits_counts() -> None:
    """BART and its kin keep it beside the head, mostly as zeros; Marian's is trained."""
    model = generative_model("t5", architecture={**BART, "vocab_size": WORDS}).double()
    torch.nn.init.normal_(model.language_model.final_logits_bias)
    batch = generation_batch(model)
    assert abs(GenerationObjective()(model, batch).total.item() - slow_loss(model, batch).item()) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(family: str) -> None:
    model = generative_model(family).train()
    GenerationObjective()(model, generation_batch(model)).total.backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("vision_model.", "language_model."))
        assert parameter.requires_grad is not frozen, name
        assert (parameter.grad is None) is frozen, name


def test_the_frozen_language_model_stays_in_eval_unless_configured() -> None:
    assert not any(m.training for m in generative_model("opt").train().language_model.modules())
    assert generative_model("opt", dropout=True).train().language_model.training
    checkpointing = generative_model("t5", gradient_checkpointing=True).train()
    assert checkpointing.language_model.training  # checkpointing acts in training mode only …
    assert checkpointing.language_model.config.dropout_rate == 0.0  # … in which nothing may be dropped


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_checkpointing_changes_nothing(family: str) -> None:
    plain, checkpointing = (generative_model(family, gradient_checkpointing=c).double() for c in (False, True))
    losses = []
    for model in (plain.train(), checkpointing.train()):
        loss = GenerationObjective()(model, generation_batch(model)).total
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.testing.assert_close(plain.query_tokens.grad, checkpointing.query_tokens.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", ["opt", "t5"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_language_models_agree_within_their_rounding(family: str, dtype: str) -> None:
    if (family, dtype) == ("t5", "float16"):
        pytest.skip("T5 is never run in float16")
    exact, rounded = generative_model(family), generative_model(family, dtype=dtype)
    rounded.load_state_dict(exact.state_dict())
    gradients = []
    for model in (exact, rounded):
        loss = GenerationObjective()(model, generation_batch(model)).total
        loss.backward()
        gradients.append((loss.item(), model.query_tokens.grad.flatten()))
    step = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=20 * step)
    assert torch.cosine_similarity(gradients[0][1], gradients[1][1], dim=0) > 1 - 40 * step


def test_small_gradients_survive_a_float16_language_model() -> None:
    model = generative_model("opt", dtype="float16")
    batch = generation_batch(model)
    (GenerationObjective()(model, batch).total * 1e-5).backward()  # as one of very many tokens
    assert (model.language_projection.weight.grad != 0).float().mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_of_unequal_prompts_generates_as_one_by_one(family: str, beams: int) -> None:
    model = generative_model(family).eval()
    batch = generation_batch(model)
    options = GenerationOptions(num_beams=beams, max_new_tokens=6)

    def generate(rows: slice, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return model.generate(batch.pixel_values[rows], ids, mask, options, eos_token_id=1, pad_token_id=0)

    together = generate(slice(None), batch.input_ids, batch.attention_mask)
    for row in range(len(batch)):
        length = int(batch.attention_mask[row].sum())
        alone = generate(
            slice(row, row + 1), batch.input_ids[row : row + 1, :length], batch.attention_mask[row : row + 1, :length]
        )[0]
        assert torch.equal(together[row, : len(alone)], alone)
        assert (together[row, len(alone) :] == 0).all()


def test_masked_tokens_go_to_the_front_in_order() -> None:
    values = torch.arange(8.0).reshape(1, 4, 2)
    moved, mask = left_padded(values, torch.tensor([[True, False, True, False]]))
    assert mask.tolist() == [[False, False, True, True]]
    assert moved[0, 2:].tolist() == [[0.0, 1.0], [4.0, 5.0]]


@pytest.mark.parametrize(("family", "warned"), [("t5", True), ("opt", False)])
def test_t5_in_float16_is_warned_of(family: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    generative_model(family, dtype="float16")
    assert ("set model.language.dtype=bfloat16" in caplog.text) == warned


def test_pretrained_models_wait_on_the_meta_device() -> None:
    config = LanguageModelConfig(name="facebook/opt-2.7b", architecture=ARCHITECTURES["opt"])
    model = generative_model("opt")
    waiting = GenerativeModel(model.vision_config, model.qformer_config, config)
    assert all(p.is_meta for p in waiting.language_model.parameters())
    assert not waiting.language_projection.weight.is_meta


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "no/such/model"}, "has no configuration"),
        ({"name": "x", "architecture": {"model_type": "no_such"}}, "has no configuration"),
        ({"name": "x", "architecture": {"hidden_size": 3}}, "lacks model_type"),
        ({"name": "x", "architecture": ARCHITECTURES["opt"], "overrides": {"dense_act": "gelu"}}, "no such key"),
        ({"name": "x", "architecture": {"model_type": "gemma2"}}, "changes its logits"),
        ({"name": "x", "dtype": "float8"}, "float8"),
        ({"name": "x", "weights": "some"}, "weights 'some'"),
    ],
)
def test_what_cannot_be_a_language_model_is_refused(options: dict, words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=words):
        language_model_architecture(LanguageModelConfig(**options))


def test_the_activation_of_the_released_t5_can_be_chosen() -> None:
    model = generative_model("t5", overrides={"dense_act_fn": "gelu"})
    feed_forward = model.language_model.encoder.block[0].layer[1].DenseReluDense
    values = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(feed_forward.act(values), torch.nn.functional.gelu(values))
