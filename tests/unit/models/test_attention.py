import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_train.models.attention import Attention


def attention(source_size: int = 6) -> Attention:
    torch.manual_seed(0)
    return Attention(8, 2, source_size=source_size, dropout=0.0, attention_dropout=0.0, eps=1e-12).double()


def test_folding_the_layer_norm_changes_nothing() -> None:
    module, features = attention(), torch.randn(3, 5, 6, dtype=torch.float64)
    scale, shift = torch.randn(2, 6, dtype=torch.float64).unbind()
    key, value = module.project_image_kv(F.layer_norm(features, (6,)), scale, shift)
    normed = F.layer_norm(features, (6,), scale, shift)
    torch.testing.assert_close(key, module.split_heads(module.attention.key(normed)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(value, module.split_heads(module.attention.value(normed)), rtol=1e-12, atol=1e-12)


def test_folding_keeps_no_copy_of_the_weights() -> None:
    module, features = attention().float(), torch.randn(3, 5, 6)
    scale, shift = (torch.randn(6, requires_grad=True) for _ in range(2))
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        key, value = module.project_image_kv(features, scale, shift)
    own = {tensor.data_ptr() for tensor in (*module.parameters(), scale, shift, features)}
    assert set(kept) <= own, [tuple(tensor.shape) for pointer, tensor in kept.items() if pointer not in own]
    (key.sum() + (value * value).sum()).backward()
    weight = torch.cat([module.attention.key.weight, module.attention.value.weight]).detach().requires_grad_()
    whole = F.linear(features, weight * scale.detach(), F.linear(shift.detach(), weight, None))
    bias = torch.cat([module.attention.key.bias, module.attention.value.bias]).detach()
    keys, values = (whole + bias).chunk(2, dim=-1)
    (keys.sum() + (values * values).sum()).backward()
    grads = [module.attention.key.weight.grad, module.attention.value.weight.grad]
    torch.testing.assert_close(torch.cat([grad for grad in grads if grad is not None]), weight.grad)


def test_rows_that_share_a_image_read_it_as_if_it_were_repeated() -> None:
    module = attention()
    key, value = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64).unbind()
    other_key, other_value = torch.randn(2, 2, 2, 5, 4, dtype=torch.float64).unbind()
    states = torch.randn(8, 4, 8, dtype=torch.float64)
    shared = module.read_images(states, [(key, value, 2), (other_key, other_value, 1)])
    repeated = module.read_images(
        states, [(torch.cat([key, key, other_key]), torch.cat([value, value, other_value]), 1)]
    )
    torch.testing.assert_close(shared, repeated, rtol=1e-12, atol=1e-12)


def test_rows_without_a_image_are_refused() -> None:
    module, key = attention(), torch.randn(3, 2, 5, 4, dtype=torch.float64)
    try:
        module.read_images(torch.randn(4, 4, 8, dtype=torch.float64), [(key, key, 1)])
    except (ValueError, RuntimeError) as error:
        assert "rows" in str(error) or "size" in str(error)
    else:
        raise AssertionError("four rows of queries read three images")


def test_a_cache_stands_in_front_of_the_sequence() -> None:
    module = attention(8)
    front, text = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 4, 8, dtype=torch.float64)
    _, cache = module.self_attention(front, None)
    mask = torch.ones(1, 1, 4, 7, dtype=torch.bool)
    alone, _ = module.self_attention(text, mask, cache)
    joint, _ = module.self_attention(torch.cat([front, text], dim=1), None)
    torch.testing.assert_close(alone, joint[:, 3:], rtol=1e-12, atol=1e-12)


def test_leading_tokens_alone_are_as_among_all() -> None:
    module, states = attention(8), torch.randn(2, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None]
    everywhere, cache = module.self_attention(states, mask)
    leading, same = module.self_attention(states, mask, leading=2)
    torch.testing.assert_close(leading, everywhere[:, :2], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(cache, same, strict=True)), "others still look at all tokens"
