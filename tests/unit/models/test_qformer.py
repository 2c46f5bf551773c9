"""Choices of the Q-Former that a checkpoint fixes."""

from dataclasses import replace

import pytest
import torch
from tiny import qformer_config
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from blip2_train.errors import ConfigError
from blip2_train.models.configs import ACTIVATIONS
from blip2_train.models.qformer import Intermediate, LanguageModellingHead, QFormer


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_activation_has_weights(name: str) -> None:
    assert not list(nn.Module.parameters(ACT2FN[name]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_is_that_of_transformers(name: str) -> None:
    part, values = Intermediate(3, 5, name), torch.randn(7, 3)
    assert torch.equal(part(values), ACT2FN[name](part.dense(values)))


def test_the_activation_of_the_configuration_is_computed_everywhere() -> None:
    config = replace(qformer_config(), hidden_act="relu")
    values = torch.randn(4, config.hidden_size)
    layers = QFormer(config, image_width=8, text_layers=config.num_layers).layers
    for part in [layer.intermediate for layer in layers] + [layer.intermediate_query for layer in layers]:
        assert torch.equal(part(values), F.relu(part.dense(values)))
    head = LanguageModellingHead(config)
    words = torch.randn(config.vocab_size, config.hidden_size)
    assert torch.equal(head(values, words), F.linear(head.LayerNorm(F.relu(head.dense(values))), words, head.bias))


def test_the_default_is_the_exact_gelu() -> None:
    part, values = Intermediate(3, 5), torch.randn(7, 3)
    assert torch.equal(part(values), F.gelu(part.dense(values)))


def test_an_unknown_activation_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="hidden_act 'prelu' is unknown; use one of gelu, "):
        replace(qformer_config(), hidden_act="prelu")
