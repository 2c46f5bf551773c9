"""A frozen language model keeps less for the backward pass than transformers' class, and computes the same."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from tiny_generation import generative_model
from torch import Tensor, nn

from blip2_train.models.lean_activations import SignReLU, keep_less

DTYPES = [torch.float64, torch.bfloat16]


def models(family: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A language model as this project freezes it, and transformers' own class with the same weights."""
    lean: Any = generative_model(family).language_model.to(dtype)
    plain = type(lean)(copy.deepcopy(lean.config)).to(dtype).eval().requires_grad_(False)
    plain.load_state_dict(lean.state_dict())
    assert all(type(module).forward is not SignReLU.forward for module in plain.modules())
    return lean, plain


def logits_and_gradient(model: Any, embeddings: Tensor) -> tuple[Tensor, Tensor, int]:
    """Logits, the gradient of the embeddings, and the bytes that were kept in between, weights left out."""
    embeddings = embeddings.clone().requires_grad_()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    options: dict[str, Any] = {"use_cache": False}
    if model.config.is_encoder_decoder:
        options["decoder_inputs_embeds"] = embeddings.flip(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(inputs_embeds=embeddings, **options).logits
    size = sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in weights)
    output.sin().sum().backward()
    assert embeddings.grad is not None
    return output.detach(), embeddings.grad, size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["opt", "t5", "llama"])
def test_the_same_for_less_memory(family: str, dtype: torch.dtype) -> None:
    lean, plain = models(family, dtype)
    embeddings = torch.randn(3, 7, lean.get_input_embeddings().embedding_dim).to(dtype)
    output, gradient, size = logits_and_gradient(lean, embeddings)
    expected, expected_gradient, plain_size = logits_and_gradient(plain, embeddings)
    assert torch.equal(output, expected)
    if family == "opt" or dtype == torch.float64:  # norms add up a gradient's terms in another order
        tolerance = 0.0 if family == "opt" else 1e-12
        torch.testing.assert_close(gradient, expected_gradient, rtol=tolerance, atol=tolerance * gradient.abs().max())
    if family == "opt" or dtype == torch.bfloat16:
        assert size < 0.95 * plain_size
    again, gradient_again, size_again = logits_and_gradient(copy.deepcopy(lean), embeddings)
    assert torch.equal(again, output) and torch.equal(gradient_again, gradient) and size_again == size


def test_relu_keeps_a_byte_per_number_and_lets_the_gradient_of_nan_pass() -> None:
    states = torch.tensor([-1.0, 0.0, 2.0, float("nan")], requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output = SignReLU()(states)
    output.backward(torch.ones(4))
    assert [tensor.dtype for tensor in kept] == [torch.bool]
    assert output[:3].tolist() == [0.0, 0.0, 2.0] and output[3].isnan()
    assert states.grad is not None and states.grad.tolist() == [0.0, 0.0, 1.0, 1.0]
    with torch.no_grad():
        assert torch.equal(SignReLU()(states)[:3], output[:3])


def test_names_stay_and_norms_that_train_are_left_alone() -> None:
    lean, plain = models("t5", torch.float32)
    assert list(lean.state_dict()) == list(plain.state_dict())
    norms = [type(module) for module in lean.modules() if type(module).__name__.endswith("LayerNorm")]
    assert norms and all(kind.__mro__[1].__name__ == "_RecomputedNorm" for kind in norms)
    before = [type(module) for module in plain.requires_grad_(True).modules()]
    keep_less(plain)
    assert [type(module) for module in plain.modules()] == before
    keep_less(lean)
    assert [type(m) for m in lean.modules() if type(m).__name__.endswith("LayerNorm")] == norms, "done once"
    stack = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    keep_less(stack)
    assert isinstance(stack[1], SignReLU)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_it_can_be_pickled(family: str) -> None:
    lean, _ = models(family, torch.float64)
    again = pickle.loads(pickle.dumps(lean))
    kinds = [[type(module) for module in model.modules()] for model in (lean, again)]
    assert kinds[0] == kinds[1]
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in lean.state_dict().items())
