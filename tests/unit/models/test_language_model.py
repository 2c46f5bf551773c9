"""Language models that the loss of stage 2 does not fit are refused by what they are."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers.models.mbart.modeling_mbart import shift_tokens_right

from blip2_train.errors import ConfigError
from blip2_train.models.configs import LanguageModelConfig
from blip2_train.models.language_model import language_model_architecture

TINY: dict[str, Any] = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "decoder_start_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "words"),
    [("mbart", "language token behind the labels"), ("plbart", "language token"), ("prophetnet", "several tokens")],
)
def test_families_with_another_loss_are_refused(model_type: str, words: str) -> None:
    config = LanguageModelConfig(
        name="m", weights="random", architecture={"model_type": model_type, "decoder_start_token_id": 2}
    )
    with pytest.raises(ConfigError, match=words):
        language_model_architecture(config)
    bart = LanguageModelConfig(name="m", weights="random", architecture={"model_type": "bart", **TINY})
    assert language_model_architecture(bart).model_type == "bart"


def test_the_decoder_of_mbart_starts_with_the_last_label() -> None:
    """Why it is refused: `decoder_start_token_id` is not what its own loss puts in front."""
    import torch

    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("mbart", **TINY))
    labels = torch.tensor([[7, 8, 2, 9]])
    assert shift_tokens_right(labels, model.config.pad_token_id).tolist() == [[9, 7, 8, 2]]
